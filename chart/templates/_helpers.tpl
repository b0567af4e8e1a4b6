{{- define "kafscale-mcp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimAll "-." -}}
{{- end -}}

{{/* At most 52 characters: with the longest suffix, a name stays within the 63 that Kubernetes allows. */}}
{{- define "kafscale-mcp.fullname" -}}
{{- $name := include "kafscale-mcp.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimAll "-" -}}
{{- end -}}

{{- define "kafscale-mcp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kafscale-mcp.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: mcp
{{- end -}}

{{- define "kafscale-mcp.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kafscale
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "kafscale-mcp.labels" -}}
{{ include "kafscale-mcp.selectorLabels" . }}
{{ include "kafscale-mcp.commonLabels" . }}
{{- end -}}

{{/* The component differs from the selector's, so that the Service never routes calls to the pod of `helm test`. */}}
{{- define "kafscale-mcp.testLabels" -}}
app.kubernetes.io/name: {{ include "kafscale-mcp.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: test
{{- end -}}

{{/*
Metadata of an object. Parameters: `root`, the root context; `suffix`, appended to the release's full name; optionally
`labels`, which take precedence over those of the chart. Helm only adopts objects whose label `managed-by` is its own.
*/}}
{{- define "kafscale-mcp.metadata" -}}
name: {{ printf "%s%s" (include "kafscale-mcp.fullname" .root) .suffix | quote }}
namespace: {{ .root.Values.mcp.namespace.name | quote }}
labels:
  {{- $own := include "kafscale-mcp.labels" .root | fromYaml }}
  {{- omit (default dict .labels) "app.kubernetes.io/managed-by" | mergeOverwrite $own | toYaml | nindent 2 }}
{{- end -}}

{{/*
Who owns the namespace: `release`, which creates it if necessary, or `other`. Without access to the cluster, as in
`helm template`, it is assumed not to exist.
*/}}
{{- define "kafscale-mcp.namespaceOwner" -}}
{{- $namespace := .Values.mcp.namespace -}}
{{- $owner := "release" -}}
{{- if or (not $namespace.create) (eq $namespace.name .Release.Namespace) -}}
{{- $owner = "other" -}}
{{- else -}}
{{- with lookup "v1" "Namespace" "" $namespace.name -}}
{{- $annotations := default dict .metadata.annotations -}}
{{- $isManaged := eq (get (default dict .metadata.labels) "app.kubernetes.io/managed-by") $.Release.Service -}}
{{- $isNamed := eq (get $annotations "meta.helm.sh/release-name") $.Release.Name -}}
{{- $isInNamespace := eq (get $annotations "meta.helm.sh/release-namespace") $.Release.Namespace -}}
{{- if not (and $isManaged $isNamed $isInNamespace) }}{{ $owner = "other" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $owner -}}
{{- end -}}

{{- define "kafscale-mcp.serviceAccountName" -}}
{{- with .Values.mcp.serviceAccount -}}
{{- default (ternary (include "kafscale-mcp.fullname" $) "default" .create) .name -}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.image" -}}
{{- with .Values.mcp.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (ternary "latest" (default $.Chart.AppVersion .tag) .useLatest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The names in `imagePullSecrets`, as a JSON array. */}}
{{- define "kafscale-mcp.pullSecretNames" -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets -}}
{{- $names = append $names (kindIs "map" . | ternary . (dict "name" .)).name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* A Kubernetes quantity, such as `512Mi`, as a number. */}}
{{- define "kafscale-mcp.quantity" -}}
{{- $factors := dict
  "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- $suffix := regexFind "[A-Za-z]+$" (toString .) -}}
{{- $factor := default 1 (get $factors $suffix) -}}
{{- printf "%.9f" (mulf (trimSuffix $suffix (toString .) | float64) $factor) -}}
{{- end -}}

{{/* The port of `mcp.httpAddr`, the digits at its end. */}}
{{- define "kafscale-mcp.port" -}}
{{- regexFind "[0-9]+$" .Values.mcp.httpAddr -}}
{{- end -}}

{{/* The port of `mcp.telemetry.addr`; empty if the metrics are off or reachable from within the pod only. */}}
{{- define "kafscale-mcp.telemetryPort" -}}
{{- $addr := .Values.mcp.telemetry.addr -}}
{{- if not (regexMatch "^(off$|127\\.|localhost:|\\[::1\\])" $addr) -}}
{{- regexFind "[0-9]+$" $addr -}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.scheme" -}}
{{- ternary "https" "http" (ne .Values.mcp.tls.existingSecret "") -}}
{{- end -}}

{{/* Not empty if clients must present a certificate. */}}
{{- define "kafscale-mcp.asksForClientCertificates" -}}
{{- with .Values.mcp.tls.clientCA -}}
{{- if or .existingConfigMap .existingSecret -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if there can be more than one replica. */}}
{{- define "kafscale-mcp.hasReplicas" -}}
{{- with .Values.mcp -}}
{{- if gt (ternary .autoscaling.maxReplicas .replicaCount .autoscaling.enabled | int) 1 -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The URL of the Service inside the cluster. */}}
{{- define "kafscale-mcp.serviceURL" -}}
{{- $scheme := include "kafscale-mcp.scheme" . -}}
{{- $port := int .Values.mcp.service.port -}}
{{- $isDefault := eq $port (ternary 443 80 (eq $scheme "https")) -}}
{{- $host := printf "%s.%s.svc" (include "kafscale-mcp.fullname" .) .Values.mcp.namespace.name -}}
{{- printf "%s://%s%s" $scheme $host (ternary "" (printf ":%d" $port) $isDefault) -}}
{{- end -}}

{{/* The first host of the ingress; empty if it is a wildcard. */}}
{{- define "kafscale-mcp.ingressHost" -}}
{{- with .Values.mcp.ingress -}}
{{- if and .enabled .hosts -}}
{{- $host := (first .hosts).host -}}
{{- if not (hasPrefix "*" $host) }}{{ $host }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The path of the ingress's first host below which everything is: its first path, without the service's own paths and
without what only a pattern has, as in /kafscale(/|$)(.*).
*/}}
{{- define "kafscale-mcp.ingressPath" -}}
{{- with (first .Values.mcp.ingress.hosts).paths -}}
{{- $path := regexFind "^[A-Za-z0-9/._~%-]*" (first .).path -}}
{{- regexReplaceAll "/(mcp|\\.well-known.*)?$" $path "" -}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.publicURL" -}}
{{- $host := include "kafscale-mcp.ingressHost" . -}}
{{- if .Values.mcp.publicURL -}}
{{- trimSuffix "/" .Values.mcp.publicURL -}}
{{- else if $host -}}
{{- $scheme := ternary "https" "http" (gt (len .Values.mcp.ingress.tls) 0) -}}
{{- printf "%s://%s%s" $scheme $host (include "kafscale-mcp.ingressPath" .) -}}
{{- else -}}
{{- include "kafscale-mcp.serviceURL" . -}}
{{- end -}}
{{- end -}}

{{/*
Host names that clients use. Empty, which accepts any host, if they cannot be known here: behind a load balancer or node
port without `mcp.publicURL`, or an ingress with a wildcard host.
*/}}
{{- define "kafscale-mcp.allowedHosts" -}}
{{- $mcp := .Values.mcp -}}
{{- $name := include "kafscale-mcp.fullname" . -}}
{{- $namespaced := printf "%s.%s" $name $mcp.namespace.name -}}
{{- $full := printf "%s.svc.%s" $namespaced $mcp.clusterDomain -}}
{{- $service := list $name $namespaced (printf "%s.svc" $namespaced) $full -}}
{{- $hosts := concat (list "localhost" "127.0.0.1") $service -}}
{{- $known := or (eq $mcp.service.type "ClusterIP") (ne $mcp.publicURL "") -}}
{{- with $mcp.publicURL -}}
{{- $hosts = append $hosts (regexReplaceAll "^https?://(\\[[^]]*\\]|[^:/]*).*$" . "${1}") -}}
{{- end -}}
{{- if $mcp.ingress.enabled -}}
{{- range $mcp.ingress.hosts -}}
{{- $hosts = append $hosts .host -}}
{{- if hasPrefix "*" .host }}{{ $known = false }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $mcp.allowedHosts -}}
{{- join "," $mcp.allowedHosts -}}
{{- else if $known -}}
{{- join "," (uniq $hosts) -}}
{{- end -}}
{{- end -}}

{{/*
A value as the text of an environment variable. Helm parses numbers as floats; Kubernetes expands `$(…)`, so every `$`
is doubled.
*/}}
{{- define "kafscale-mcp.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . | replace "$" "$$" -}}
{{- else if kindIs "float64" . -}}
{{- int64 . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . | replace "$" "$$" -}}
{{- end -}}
{{- end -}}

{{/*
Settings passed as values: for each, the path of its value below `mcp`. An empty one is left out, so that the service's
default applies.
*/}}
{{- define "kafscale-mcp.settings" -}}
{{- dict
  "HTTP_ADDR" "httpAddr"
  "PUBLIC_URL" "publicURL"
  "ALLOWED_HOSTS" "allowedHosts"
  "ALLOWED_ORIGINS" "allowedOrigins"
  "TRUSTED_PROXIES" "trustedProxies"
  "ETCD_ENDPOINTS" "etcdEndpoints"
  "ETCD_USERNAME" "etcd.username"
  "BROKER_METRICS_URL" "metrics.brokerMetricsURL"
  "METRICS_ALLOWED_HOSTS" "metrics.allowedHosts"
  "METRICS_MAX_AGE" "metrics.maxAge"
  "MAX_STALENESS" "maxStaleness"
  "VERIFY_INTERVAL" "verifyInterval"
  "SESSION_TIMEOUT" "sessionTimeout"
  "AUTH_MODE" "auth.mode"
  "OIDC_ISSUER" "auth.oidc.issuers"
  "OIDC_AUDIENCE" "auth.oidc.audience"
  "OIDC_SCOPE" "auth.oidc.scope"
  "OIDC_ADVERTISED_SCOPE" "auth.oidc.advertisedScope"
  "OIDC_ID_TOKEN_ISSUERS" "auth.oidc.idTokenIssuers"
  "OIDC_MAX_TOKEN_LIFETIME" "auth.oidc.maxTokenLifetime"
  "OIDC_JWKS_URL" "auth.oidc.jwksURLs"
  "OIDC_INTROSPECTION_URL" "auth.oidc.introspectionURL"
  "OIDC_ALLOW_HTTP" "auth.oidc.allowHTTP"
  "OIDC_CLIENT_ID" "auth.oidc.clientId"
  "AUTH_JWKS_ISSUER" "auth.jwks.issuer"
  "ENVIRONMENT" "environment"
  "TOOLS" "tools"
  "DISABLED_TOOLS" "disabledTools"
  "AUDIT_SINKS" "audit.sinks"
  "AUDIT_HEAD_FILE" "audit.headFile"
  "AUDIT_FAIL_MODE" "audit.failMode"
  "AUDIT_REDACT" "audit.redact"
  "AUDIT_COLLECTOR_BATCH_BYTES" "audit.collector.batchBytes"
  "RATE_LIMIT" "limits.rateLimit"
  "ADDRESS_RATE_LIMIT" "limits.addressRateLimit"
  "MAX_CONNECTIONS" "limits.maxConnections"
  "ADDRESS_MAX_CONNECTIONS" "limits.addressMaxConnections"
  "MAX_CONCURRENT_CALLS" "limits.maxConcurrentCalls"
  "ADDRESS_MAX_CONCURRENT_CALLS" "limits.addressMaxConcurrentCalls"
  "MAX_AUTH_FAILURES" "limits.maxAuthFailures"
  "MAX_EVENT_LOOP_DELAY" "limits.maxEventLoopDelay"
  "MAX_BODY_BYTES" "limits.maxBodyBytes"
  "REQUEST_TIMEOUT" "limits.requestTimeout"
  "KEEP_ALIVE_TIMEOUT" "limits.keepAliveTimeout"
  "RESPONSE_TIMEOUT" "limits.responseTimeout"
  "MAX_UNREAD_BYTES" "limits.maxUnreadBytes"
  "TOTAL_MAX_UNREAD_BYTES" "limits.totalMaxUnreadBytes"
  "LOG_LEVEL" "logLevel"
  "TELEMETRY_ADDR" "telemetry.addr"
| toJson -}}
{{- end -}}

{{/* The same for the settings of changes, which are passed only if `mcp.changes.enabled`. */}}
{{- define "kafscale-mcp.changesSettings" -}}
{{- dict
  "CHANGES" "changes.enabled"
  "EXPECTED_CLUSTER_ID" "changes.expectedClusterId"
  "KAFKA_BROKERS" "changes.kafka.brokers"
  "KAFKA_CLIENT_ID" "changes.kafka.clientId"
  "KAFKA_TLS" "changes.kafka.tls.enabled"
  "KAFKA_SASL_MECHANISM" "changes.kafka.sasl.mechanism"
  "KAFKA_SASL_USERNAME" "changes.kafka.sasl.username"
  "BROKER_CONTROL_ADDR" "changes.control.addr"
  "BROKER_CONTROL_TLS" "changes.control.tls.enabled"
  "CHANGES_ETCD_ENDPOINTS" "changes.ledger.endpoints"
  "CHANGES_ETCD_USERNAME" "changes.ledger.username"
  "MAX_PARTITIONS" "changes.maxPartitions"
  "CHANGE_PLANNED_LIFETIME" "changes.lifetimes.planned"
  "CHANGE_PENDING_LIFETIME" "changes.lifetimes.pending"
  "CHANGE_APPROVED_LIFETIME" "changes.lifetimes.approved"
  "CHANGE_RETENTION" "changes.retention"
| toJson -}}
{{- end -}}

{{/* The volume of the settings passed as files. */}}
{{- define "kafscale-mcp.filesVolume" -}}
projected:
  defaultMode: 0440
  sources:
    {{- range include "kafscale-mcp.files" . | fromJsonArray }}
    {{- if .secret }}
    - secret:
        name: {{ .secret | quote }}
    {{- else }}
    - configMap:
        name: {{ .configMap | quote }}
    {{- end }}
        items:
          - key: {{ .key | quote }}
            path: {{ .path | quote }}
    {{- end }}
{{- end -}}

{{/*
The container's variables, except those of `extraEnv`, as a JSON array of objects: `name`; `value` or `valueFrom`;
`from`, the value of the chart that sets it.
*/}}
{{- define "kafscale-mcp.variables" -}}
{{- $mcp := .Values.mcp -}}
{{- $variables := list -}}
{{- $scope := $mcp.auth.oidc.advertisedScope -}}
{{- $computed := dict
  "PUBLIC_URL" (include "kafscale-mcp.publicURL" .)
  "ALLOWED_HOSTS" (include "kafscale-mcp.allowedHosts" .)
  "OIDC_ADVERTISED_SCOPE" (kindIs "slice" $scope | ternary (join " " $scope) $scope)
  "AUDIT_HEAD_FILE" (ternary (printf "%s/head" $mcp.audit.headFile.mountPath) "" $mcp.audit.headFile.enabled)
  "CHANGES" "enabled"
  "KAFKA_TLS" (ternary "on" "off" $mcp.changes.kafka.tls.enabled)
  "BROKER_CONTROL_TLS" (ternary "on" "off" $mcp.changes.control.tls.enabled)
-}}
{{- $settings := include "kafscale-mcp.settings" . | fromJson -}}
{{- if $mcp.changes.enabled -}}
{{- $settings = include "kafscale-mcp.changesSettings" . | fromJson | merge $settings -}}
{{- end -}}
{{- range $name, $path := $settings -}}
{{- $value := $mcp -}}
{{- range splitList "." $path }}{{ $value = get $value . }}{{ end -}}
{{- if hasKey $computed $name }}{{ $value = get $computed $name }}{{ end -}}
{{- with include "kafscale-mcp.text" $value -}}
{{- $variables = append $variables (dict "name" (print "KAFSCALE_MCP_" $name) "value" . "from" $path) -}}
{{- end -}}
{{- end -}}
{{- range $name, $path := dict "HTTPS_PROXY" "httpsProxy" "HTTP_PROXY" "httpProxy" "NO_PROXY" "noProxy" -}}
{{- with include "kafscale-mcp.text" (get $mcp.proxy $path) -}}
{{- $variables = append $variables (dict "name" $name "value" . "from" (print "proxy." $path)) -}}
{{- end -}}
{{- end -}}
{{- range include "kafscale-mcp.files" . | fromJsonArray -}}
{{- $variables = append $variables (dict
  "name" (printf "KAFSCALE_MCP_%s_FILE" .variable) "value" (print "/etc/kafscale-mcp/" .path) "from" .from) -}}
{{- end -}}
{{- if and $mcp.etcd.existingSecret (not $mcp.etcd.username) -}}
{{- $key := dict "name" $mcp.etcd.existingSecret "key" $mcp.etcd.existingSecretKeys.username -}}
{{- $variables = append $variables (dict
  "name" "KAFSCALE_MCP_ETCD_USERNAME" "valueFrom" (dict "secretKeyRef" $key) "from" "etcd.existingSecret") -}}
{{- end -}}
{{- with $mcp.changes.ledger -}}
{{- if and $mcp.changes.enabled .existingSecret (not .username) -}}
{{- $key := dict "name" .existingSecret "key" .existingSecretKeys.username -}}
{{- $variables = append $variables (dict
  "name" "KAFSCALE_MCP_CHANGES_ETCD_USERNAME" "valueFrom" (dict "secretKeyRef" $key)
  "from" "changes.ledger.existingSecret") -}}
{{- end -}}
{{- end -}}
{{- if and $mcp.audit.persistence.enabled (include "kafscale-mcp.hasReplicas" .) -}}
{{- $field := dict "fieldPath" "metadata.name" -}}
{{- $variables = append $variables (dict
  "name" "POD_NAME" "valueFrom" (dict "fieldRef" $field) "from" "audit.persistence") -}}
{{- end -}}
{{- toJson $variables -}}
{{- end -}}

{{/*
Settings passed as files, as a JSON array of objects: `variable`, the setting; `path`, the file's name; `from`, the
value of the chart that sets it; `secret` or `configMap`, the object that holds it; `key`, its key there. An `inline`
value is in the release's own Secret.
*/}}
{{- define "kafscale-mcp.files" -}}
{{- $mcp := .Values.mcp -}}
{{- $own := include "kafscale-mcp.fullname" . -}}
{{- $files := list -}}
{{- $sources := list
  (dict "variable" "AUTH_TOKEN" "path" "auth-token" "from" "auth"
    "inline" $mcp.auth.token "secret" $mcp.auth.existingSecret "key" $mcp.auth.existingSecretKey)
  (dict "variable" "OIDC_CLIENT_SECRET" "path" "oidc-client-secret" "from" "auth.oidc"
    "inline" $mcp.auth.oidc.clientSecret "secret" $mcp.auth.oidc.existingSecret "key" $mcp.auth.oidc.existingSecretKey)
  (dict "variable" "ETCD_PASSWORD" "path" "etcd-password" "from" "etcd"
    "inline" $mcp.etcd.password "secret" $mcp.etcd.existingSecret "key" $mcp.etcd.existingSecretKeys.password)
  (dict "variable" "ETCD_CA" "path" "etcd-ca.crt" "from" "etcd.tls.ca"
    "configMap" $mcp.etcd.tls.ca.existingConfigMap "secret" $mcp.etcd.tls.ca.existingSecret "key" $mcp.etcd.tls.ca.key)
  (dict "variable" "ETCD_CERT" "path" "etcd.crt" "from" "etcd.tls.client"
    "secret" $mcp.etcd.tls.client.existingSecret "key" $mcp.etcd.tls.client.certKey)
  (dict "variable" "ETCD_KEY" "path" "etcd.key" "from" "etcd.tls.client"
    "secret" $mcp.etcd.tls.client.existingSecret "key" $mcp.etcd.tls.client.keyKey)
  (dict "variable" "AUTH_JWKS" "path" "jwks.json" "from" "auth.jwks"
    "configMap" $mcp.auth.jwks.existingConfigMap "secret" $mcp.auth.jwks.existingSecret "key" $mcp.auth.jwks.key)
  (dict "variable" "TLS_CERT" "path" "tls.crt" "from" "tls"
    "secret" $mcp.tls.existingSecret "key" $mcp.tls.certKey)
  (dict "variable" "TLS_KEY" "path" "tls.key" "from" "tls"
    "secret" $mcp.tls.existingSecret "key" $mcp.tls.keyKey)
  (dict "variable" "TLS_CLIENT_CA" "path" "client-ca.crt" "from" "tls.clientCA"
    "configMap" $mcp.tls.clientCA.existingConfigMap "secret" $mcp.tls.clientCA.existingSecret
    "key" $mcp.tls.clientCA.key)
  (dict "variable" "AUDIT_SIGNING_KEY" "path" "audit.key" "from" "audit.signingKey"
    "secret" $mcp.audit.signingKey.existingSecret "key" $mcp.audit.signingKey.key)
  (dict "variable" "AUDIT_COLLECTOR_HEADERS" "path" "collector-headers" "from" "audit.collector.headers"
    "secret" $mcp.audit.collector.headers.existingSecret "key" $mcp.audit.collector.headers.key)
  (dict "variable" "AUDIT_COLLECTOR_CA" "path" "collector-ca.crt" "from" "audit.collector.tls.ca"
    "configMap" $mcp.audit.collector.tls.ca.existingConfigMap "secret" $mcp.audit.collector.tls.ca.existingSecret
    "key" $mcp.audit.collector.tls.ca.key)
  (dict "variable" "AUDIT_COLLECTOR_CERT" "path" "collector.crt" "from" "audit.collector.tls.client"
    "secret" $mcp.audit.collector.tls.client.existingSecret "key" $mcp.audit.collector.tls.client.certKey)
  (dict "variable" "AUDIT_COLLECTOR_KEY" "path" "collector.key" "from" "audit.collector.tls.client"
    "secret" $mcp.audit.collector.tls.client.existingSecret "key" $mcp.audit.collector.tls.client.keyKey)
  (dict "variable" "POLICY" "path" "policy.yaml" "from" "policy"
    "configMap" (include "kafscale-mcp.policyConfigMap" $)
    "key" (ternary $mcp.policy.key "policy.yaml" (ne $mcp.policy.existingConfigMap "")))
-}}
{{- if $mcp.changes.enabled -}}
{{- $sources = include "kafscale-mcp.changesFiles" . | fromJsonArray | concat $sources -}}
{{- end -}}
{{- range $sources -}}
{{- if .inline -}}
{{- $files = append $files (dict "variable" .variable "path" .path "from" .from "secret" $own "key" .path) -}}
{{- else if .configMap -}}
{{- $files = append $files (pick . "variable" "path" "from" "configMap" "key") -}}
{{- else if .secret -}}
{{- $files = append $files (pick . "variable" "path" "from" "secret" "key") -}}
{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* Not empty if people can sign in to the pages of changes: everything that they need is set, or generated. */}}
{{- define "kafscale-mcp.hasPages" -}}
{{- $mcp := .Values.mcp -}}
{{- $oidc := $mcp.auth.oidc -}}
{{- if and $mcp.enabled $mcp.changes.enabled $oidc.issuers $oidc.clientId (or $oidc.clientSecret $oidc.existingSecret) -}}
true
{{- end -}}
{{- end -}}

{{/* The Secret with the generated key of sessions; empty if that is given, or not needed. */}}
{{- define "kafscale-mcp.generatedSessionKey" -}}
{{- with .Values.mcp.changes.sessionKey -}}
{{- if and (include "kafscale-mcp.hasPages" $) (not .value) (not .existingSecret) -}}
{{- printf "%s-session-key" (include "kafscale-mcp.fullname" $) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same for the settings of changes, before it is known which of the sources is set. */}}
{{- define "kafscale-mcp.changesFiles" -}}
{{- $kafka := .Values.mcp.changes.kafka -}}
{{- $control := .Values.mcp.changes.control -}}
{{- $ledger := .Values.mcp.changes.ledger -}}
{{- $webhook := .Values.mcp.changes.webhook -}}
{{- $session := .Values.mcp.changes.sessionKey -}}
{{- $generated := include "kafscale-mcp.generatedSessionKey" . -}}
{{- $files := list
  (dict "variable" "KAFKA_SASL_PASSWORD" "path" "kafka-password" "from" "changes.kafka.sasl"
    "inline" $kafka.sasl.password "secret" $kafka.sasl.existingSecret "key" $kafka.sasl.existingSecretKey)
  (dict "variable" "CHANGES_ETCD_PASSWORD" "path" "ledger-password" "from" "changes.ledger"
    "inline" $ledger.password "secret" $ledger.existingSecret "key" $ledger.existingSecretKeys.password)
  (dict "variable" "WEBHOOK_URL" "path" "webhook-url" "from" "changes.webhook"
    "inline" $webhook.url "secret" $webhook.existingSecret "key" $webhook.existingSecretKeys.url)
  (dict "variable" "WEBHOOK_SECRET" "path" "webhook-secret" "from" "changes.webhook"
    "inline" $webhook.secret "secret" $webhook.existingSecret "key" $webhook.existingSecretKeys.secret)
  (dict "variable" "SESSION_KEY" "path" "session-key" "from" "changes.sessionKey"
    "inline" $session.value "secret" (or $session.existingSecret $generated)
    "key" (ternary "session-key" $session.existingSecretKey (ne $generated "")))
-}}
{{- range list
  (dict "variable" "KAFKA" "path" "kafka" "from" "changes.kafka.tls" "tls" $kafka.tls)
  (dict "variable" "BROKER_CONTROL" "path" "control" "from" "changes.control.tls" "tls" $control.tls)
  (dict "variable" "CHANGES_ETCD" "path" "ledger" "from" "changes.ledger.tls" "tls" $ledger.tls)
-}}
{{- $ca := .tls.ca -}}
{{- $client := .tls.client -}}
{{- $files = concat $files (list
  (dict "variable" (print .variable "_CA") "path" (print .path "-ca.crt") "from" (print .from ".ca")
    "configMap" $ca.existingConfigMap "secret" $ca.existingSecret "key" $ca.key)
  (dict "variable" (print .variable "_CERT") "path" (print .path ".crt") "from" (print .from ".client")
    "secret" $client.existingSecret "key" $client.certKey)
  (dict "variable" (print .variable "_KEY") "path" (print .path ".key") "from" (print .from ".client")
    "secret" $client.existingSecret "key" $client.keyKey)) -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* The ConfigMap that holds the policy; empty if no policy is configured. */}}
{{- define "kafscale-mcp.policyConfigMap" -}}
{{- with .Values.mcp.policy -}}
{{- if .existingConfigMap -}}
{{- .existingConfigMap -}}
{{- else if include "kafscale-mcp.inlinePolicy" $ -}}
{{- include "kafscale-mcp.fullname" $ }}-policy
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the values contain a policy. */}}
{{- define "kafscale-mcp.inlinePolicy" -}}
{{- with .Values.mcp.policy -}}
{{- if or .roles .bindings .changes .protected -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if audit records are written to a file. */}}
{{- define "kafscale-mcp.hasAuditFile" -}}
{{- range .Values.mcp.audit.sinks -}}
{{- if hasPrefix "file:" . }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The port in a URL, which may lack its scheme; empty if there is none. Digits of a password are not one. */}}
{{- define "kafscale-mcp.urlPort" -}}
{{- $authority := regexFind "^[^/?#]*" (regexReplaceAll "^[A-Za-z][-+.A-Za-z0-9]*://" (trim .) "") -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" -}}
{{- end -}}

{{/* Not empty if a variable of `extraEnv` sets the URL of something that the service connects to. */}}
{{- define "kafscale-mcp.isDestination" -}}
{{- if and (regexMatch "^(OTEL_EXPORTER_OTLP_.*ENDPOINT|(?i:https?_proxy))$" .name) .value }}true{{ end -}}
{{- end -}}

{{/* Ports that the service connects to, as a JSON array of numbers: those of the configured URLs. */}}
{{- define "kafscale-mcp.egressPorts" -}}
{{- $mcp := .Values.mcp -}}
{{- $destinations := list -}}
{{- range $mcp.etcdEndpoints -}}
{{- $destinations = append $destinations (dict "url" . "defaultPort" "2379") -}}
{{- end -}}
{{- range splitList "," (include "kafscale-mcp.text" $mcp.metrics.brokerMetricsURL | replace " " "") -}}
{{- $destinations = append $destinations (dict "url" (ternary "http://broker:9093" . (eq . "auto"))) -}}
{{- end -}}
{{- $issuers := concat $mcp.auth.oidc.issuers $mcp.auth.oidc.jwksURLs (list $mcp.auth.oidc.introspectionURL) -}}
{{- range concat $issuers $mcp.audit.sinks (list $mcp.proxy.httpsProxy $mcp.proxy.httpProxy) -}}
{{- $destinations = append $destinations (dict "url" .) -}}
{{- end -}}
{{- with $mcp.changes -}}
{{- if .enabled -}}
{{- range concat .kafka.brokers (list .control.addr) -}}
{{- $destinations = append $destinations (dict "url" .) -}}
{{- end -}}
{{- range .ledger.endpoints -}}
{{- $destinations = append $destinations (dict "url" . "defaultPort" "2379") -}}
{{- end -}}
{{- $webhook := default (ternary "https://webhook" "" (ne .webhook.existingSecret "")) .webhook.url -}}
{{- $destinations = append $destinations (dict "url" $webhook) -}}
{{- end -}}
{{- end -}}
{{- range $mcp.extraEnv -}}
{{- if include "kafscale-mcp.isDestination" . -}}
{{- $destinations = append $destinations (dict "url" .value) -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range $destinations -}}
{{- $url := trim .url -}}
{{- if not (regexMatch "^(stdout|none|file:.*)?$" $url) -}}
{{- $port := include "kafscale-mcp.urlPort" $url -}}
{{- $defaultPort := default (ternary "443" "80" (hasPrefix "https:" $url)) .defaultPort -}}
{{- $ports = append $ports (default $defaultPort $port | int) -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end -}}
