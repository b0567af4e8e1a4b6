{{- define "kafscale-mcp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: with the longest suffix, a name stays within the 63 that Kubernetes allows. */}}
{{- define "kafscale-mcp.fullname" -}}
{{- $name := include "kafscale-mcp.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
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

{{/* Metadata of an object. Parameters: `root`, the root context; `suffix`, appended to the release's full name. */}}
{{- define "kafscale-mcp.metadata" -}}
name: {{ printf "%s%s" (include "kafscale-mcp.fullname" .root) .suffix | quote }}
namespace: {{ .root.Values.mcp.namespace.name | quote }}
labels:
  {{- include "kafscale-mcp.labels" .root | nindent 2 }}
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
{{- $service := list $name $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.cluster.local" $namespaced) -}}
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

{{/* Settings passed as values. An empty one is left out, so that the service's default applies. */}}
{{- define "kafscale-mcp.env" -}}
{{- $mcp := .Values.mcp -}}
{{- $settings := dict
  "HTTP_ADDR" $mcp.httpAddr
  "PUBLIC_URL" (include "kafscale-mcp.publicURL" .)
  "ALLOWED_HOSTS" (include "kafscale-mcp.allowedHosts" .)
  "ALLOWED_ORIGINS" $mcp.allowedOrigins
  "TRUSTED_PROXIES" $mcp.trustedProxies
  "ETCD_ENDPOINTS" $mcp.etcdEndpoints
  "ETCD_USERNAME" $mcp.etcd.username
  "BROKER_METRICS_URL" $mcp.metrics.brokerMetricsURL
  "METRICS_ALLOWED_HOSTS" $mcp.metrics.allowedHosts
  "METRICS_MAX_AGE" $mcp.metrics.maxAge
  "MAX_STALENESS" $mcp.maxStaleness
  "VERIFY_INTERVAL" $mcp.verifyInterval
  "SESSION_TIMEOUT" $mcp.sessionTimeout
  "AUTH_MODE" $mcp.auth.mode
  "OIDC_ISSUER" $mcp.auth.oidc.issuers
  "OIDC_AUDIENCE" $mcp.auth.oidc.audience
  "OIDC_SCOPE" $mcp.auth.oidc.scope
  "OIDC_ADVERTISED_SCOPE" $mcp.auth.oidc.advertisedScope
  "OIDC_ID_TOKEN_ISSUERS" $mcp.auth.oidc.idTokenIssuers
  "OIDC_MAX_TOKEN_LIFETIME" $mcp.auth.oidc.maxTokenLifetime
  "OIDC_JWKS_URL" $mcp.auth.oidc.jwksURLs
  "OIDC_INTROSPECTION_URL" $mcp.auth.oidc.introspectionURL
  "OIDC_ALLOW_HTTP" $mcp.auth.oidc.allowHTTP
  "OIDC_CLIENT_ID" $mcp.auth.oidc.clientId
  "AUTH_JWKS_ISSUER" $mcp.auth.jwks.issuer
  "ENVIRONMENT" $mcp.environment
  "TOOLS" $mcp.tools
  "DISABLED_TOOLS" $mcp.disabledTools
  "AUDIT_SINKS" $mcp.audit.sinks
  "AUDIT_HEAD_FILE" (ternary (printf "%s/head" $mcp.audit.headFile.mountPath) "" $mcp.audit.headFile.enabled)
  "AUDIT_FAIL_MODE" $mcp.audit.failMode
  "AUDIT_REDACT" $mcp.audit.redact
  "RATE_LIMIT" $mcp.limits.rateLimit
  "ADDRESS_RATE_LIMIT" $mcp.limits.addressRateLimit
  "MAX_CONCURRENT_CALLS" $mcp.limits.maxConcurrentCalls
  "ADDRESS_MAX_CONCURRENT_CALLS" $mcp.limits.addressMaxConcurrentCalls
  "MAX_AUTH_FAILURES" $mcp.limits.maxAuthFailures
  "MAX_EVENT_LOOP_DELAY" $mcp.limits.maxEventLoopDelay
  "MAX_BODY_BYTES" $mcp.limits.maxBodyBytes
  "REQUEST_TIMEOUT" $mcp.limits.requestTimeout
  "KEEP_ALIVE_TIMEOUT" $mcp.limits.keepAliveTimeout
  "RESPONSE_TIMEOUT" $mcp.limits.responseTimeout
  "MAX_UNREAD_BYTES" $mcp.limits.maxUnreadBytes
  "TOTAL_MAX_UNREAD_BYTES" $mcp.limits.totalMaxUnreadBytes
  "LOG_LEVEL" $mcp.logLevel
  "TELEMETRY_ADDR" $mcp.telemetry.addr
-}}
{{- range $name, $value := $settings -}}
{{- with include "kafscale-mcp.text" $value }}
- name: KAFSCALE_MCP_{{ $name }}
  value: {{ toJson . }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The environment of the service's container, without what the operator adds. */}}
{{- define "kafscale-mcp.containerEnv" -}}
{{- $etcd := .Values.mcp.etcd -}}
{{- include "kafscale-mcp.env" . }}
{{- range include "kafscale-mcp.files" . | fromJsonArray }}
- name: KAFSCALE_MCP_{{ .variable }}_FILE
  value: {{ printf "/etc/kafscale-mcp/%s" .path | quote }}
{{- end }}
{{- if and $etcd.existingSecret (not $etcd.username) }}
- name: KAFSCALE_MCP_ETCD_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ $etcd.existingSecret | quote }}
      key: {{ $etcd.existingSecretKeys.username | quote }}
{{- end }}
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
Settings passed as files, as a JSON array of objects: `variable`, the setting; `path`, the file's name; `secret` or
`configMap`, the object that holds it; `key`, its key there. An `inline` value is in the release's own Secret.
*/}}
{{- define "kafscale-mcp.files" -}}
{{- $mcp := .Values.mcp -}}
{{- $own := include "kafscale-mcp.fullname" . -}}
{{- $files := list -}}
{{- range list
  (dict "variable" "AUTH_TOKEN" "path" "auth-token"
    "inline" $mcp.auth.token "secret" $mcp.auth.existingSecret "key" $mcp.auth.existingSecretKey)
  (dict "variable" "OIDC_CLIENT_SECRET" "path" "oidc-client-secret"
    "inline" $mcp.auth.oidc.clientSecret "secret" $mcp.auth.oidc.existingSecret "key" $mcp.auth.oidc.existingSecretKey)
  (dict "variable" "ETCD_PASSWORD" "path" "etcd-password"
    "inline" $mcp.etcd.password "secret" $mcp.etcd.existingSecret "key" $mcp.etcd.existingSecretKeys.password)
  (dict "variable" "ETCD_CA" "path" "etcd-ca.crt"
    "configMap" $mcp.etcd.tls.ca.existingConfigMap "secret" $mcp.etcd.tls.ca.existingSecret "key" $mcp.etcd.tls.ca.key)
  (dict "variable" "ETCD_CERT" "path" "etcd.crt"
    "secret" $mcp.etcd.tls.client.existingSecret "key" $mcp.etcd.tls.client.certKey)
  (dict "variable" "ETCD_KEY" "path" "etcd.key"
    "secret" $mcp.etcd.tls.client.existingSecret "key" $mcp.etcd.tls.client.keyKey)
  (dict "variable" "AUTH_JWKS" "path" "jwks.json"
    "configMap" $mcp.auth.jwks.existingConfigMap "secret" $mcp.auth.jwks.existingSecret "key" $mcp.auth.jwks.key)
  (dict "variable" "TLS_CERT" "path" "tls.crt" "secret" $mcp.tls.existingSecret "key" $mcp.tls.certKey)
  (dict "variable" "TLS_KEY" "path" "tls.key" "secret" $mcp.tls.existingSecret "key" $mcp.tls.keyKey)
  (dict "variable" "TLS_CLIENT_CA" "path" "client-ca.crt"
    "configMap" $mcp.tls.clientCA.existingConfigMap "secret" $mcp.tls.clientCA.existingSecret
    "key" $mcp.tls.clientCA.key)
  (dict "variable" "AUDIT_SIGNING_KEY" "path" "audit.key"
    "secret" $mcp.audit.signingKey.existingSecret "key" $mcp.audit.signingKey.key)
  (dict "variable" "POLICY" "path" "policy.yaml"
    "configMap" (include "kafscale-mcp.policyConfigMap" $)
    "key" (ternary $mcp.policy.key "policy.yaml" (ne $mcp.policy.existingConfigMap "")))
-}}
{{- if .inline -}}
{{- $files = append $files (dict "variable" .variable "path" .path "secret" $own "key" .path) -}}
{{- else if .configMap -}}
{{- $files = append $files (pick . "variable" "path" "configMap" "key") -}}
{{- else if .secret -}}
{{- $files = append $files (pick . "variable" "path" "secret" "key") -}}
{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* The ConfigMap that holds the policy; empty if no policy is configured. */}}
{{- define "kafscale-mcp.policyConfigMap" -}}
{{- with .Values.mcp.policy -}}
{{- if .existingConfigMap -}}
{{- .existingConfigMap -}}
{{- else if or .roles .bindings -}}
{{- include "kafscale-mcp.fullname" $ }}-policy
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if audit records are written to a file. */}}
{{- define "kafscale-mcp.hasAuditFile" -}}
{{- range .Values.mcp.audit.sinks -}}
{{- if hasPrefix "file:" . }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Ports that the service connects to, as a JSON array of numbers: those of the configured URLs. */}}
{{- define "kafscale-mcp.egressPorts" -}}
{{- $mcp := .Values.mcp -}}
{{- $destinations := list -}}
{{- range $mcp.etcdEndpoints -}}
{{- $destinations = append $destinations (dict "url" . "defaultPort" "2379") -}}
{{- end -}}
{{- range splitList "," (default "" $mcp.metrics.brokerMetricsURL | replace " " "") -}}
{{- $destinations = append $destinations (dict "url" (ternary "http://broker:9093" . (eq . "auto"))) -}}
{{- end -}}
{{- range concat $mcp.auth.oidc.issuers $mcp.auth.oidc.jwksURLs (list $mcp.auth.oidc.introspectionURL) $mcp.audit.sinks -}}
{{- $destinations = append $destinations (dict "url" .) -}}
{{- end -}}
{{- range $mcp.extraEnv -}}
{{- if and (regexMatch "^OTEL_EXPORTER_OTLP_.*ENDPOINT$" .name) .value -}}
{{- $destinations = append $destinations (dict "url" .value) -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range $destinations -}}
{{- $url := trim .url -}}
{{- if not (regexMatch "^(stdout|none|file:.*)?$" $url) -}}
{{- $authority := regexFind "^[^/?#]*" (regexReplaceAll "^https?://" $url "") -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $authority) -}}
{{- $defaultPort := default (ternary "443" "80" (hasPrefix "https:" $url)) .defaultPort -}}
{{- $ports = append $ports (default $defaultPort $port | int) -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end -}}
