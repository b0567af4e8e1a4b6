{{- define "kafscale-mcp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Leaves room for the longest suffix within the 63 characters of a name. */}}
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

{{/* The pod of `helm test` is none of the service's. */}}
{{- define "kafscale-mcp.testLabels" -}}
app.kubernetes.io/name: {{ include "kafscale-mcp.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: test
{{- end -}}

{{/* Takes a suffix for the name. */}}
{{- define "kafscale-mcp.metadata" -}}
{{- $root := first . -}}
name: {{ printf "%s%s" (include "kafscale-mcp.fullname" $root) (last .) | quote }}
namespace: {{ $root.Values.mcp.namespace.name | quote }}
labels:
  {{- include "kafscale-mcp.labels" $root | nindent 2 }}
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

{{/* The number behind the last colon. */}}
{{- define "kafscale-mcp.port" -}}
{{- regexFind "[0-9]+$" .Values.mcp.httpAddr -}}
{{- end -}}

{{/* Empty where nobody but the pod reaches the metrics. */}}
{{- define "kafscale-mcp.telemetryPort" -}}
{{- $addr := .Values.mcp.telemetry.addr -}}
{{- if not (regexMatch "^(off$|127\\.|localhost:|\\[::1\\])" $addr) -}}
{{- regexFind "[0-9]+$" $addr -}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.scheme" -}}
{{- ternary "https" "http" (ne .Values.mcp.tls.existingSecret "") -}}
{{- end -}}

{{/* True where it is not empty. */}}
{{- define "kafscale-mcp.asksForClientCertificates" -}}
{{- with .Values.mcp.tls.clientCA -}}
{{- if or .existingConfigMap .existingSecret -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* True where it is not empty. */}}
{{- define "kafscale-mcp.hasReplicas" -}}
{{- with .Values.mcp -}}
{{- if or (and .autoscaling.enabled (gt (int .autoscaling.maxReplicas) 1)) (and (not .autoscaling.enabled) (gt (int .replicaCount) 1)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The URL of the Service within the cluster. */}}
{{- define "kafscale-mcp.serviceURL" -}}
{{- $scheme := include "kafscale-mcp.scheme" . -}}
{{- $port := int .Values.mcp.service.port -}}
{{- $usual := eq $port (ternary 443 80 (eq $scheme "https")) -}}
{{- printf "%s://%s.%s.svc%s" $scheme (include "kafscale-mcp.fullname" .) .Values.mcp.namespace.name (ternary "" (printf ":%d" $port) $usual) -}}
{{- end -}}

{{/* The ingress' first host, where it is one that has a name. */}}
{{- define "kafscale-mcp.ingressHost" -}}
{{- with .Values.mcp.ingress -}}
{{- if and .enabled .hosts -}}
{{- $host := (first .hosts).host -}}
{{- if not (hasPrefix "*" $host) }}{{ $host }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.publicURL" -}}
{{- $host := include "kafscale-mcp.ingressHost" . -}}
{{- if .Values.mcp.publicURL -}}
{{- .Values.mcp.publicURL -}}
{{- else if $host -}}
{{- printf "%s://%s" (ternary "https" "http" (gt (len .Values.mcp.ingress.tls) 0)) $host -}}
{{- else -}}
{{- include "kafscale-mcp.serviceURL" . -}}
{{- end -}}
{{- end -}}

{{/*
The names that clients reach the service by; none, and so any, where an address is given out that is not known here: by a
load balancer or node without `publicURL`, or by an ingress for hosts with a wildcard.
*/}}
{{- define "kafscale-mcp.allowedHosts" -}}
{{- $mcp := .Values.mcp -}}
{{- $name := include "kafscale-mcp.fullname" . -}}
{{- $namespaced := printf "%s.%s" $name $mcp.namespace.name -}}
{{- $hosts := list "localhost" "127.0.0.1" $name $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.cluster.local" $namespaced) -}}
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

{{/* A value as the environment holds it: numbers of values are floats to Helm, and `$(…)` means something to Kubernetes. */}}
{{- define "kafscale-mcp.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . | replace "$" "$$" -}}
{{- else if kindIs "float64" . -}}
{{- int64 . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . | replace "$" "$$" -}}
{{- end -}}
{{- end -}}

{{/* Settings that are a value each. A setting that is empty is not there, and has the service's default. */}}
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
  "METRICS_MAX_AGE" $mcp.metrics.maxAge
  "MAX_STALENESS" $mcp.maxStaleness
  "VERIFY_INTERVAL" $mcp.verifyInterval
  "SESSION_TIMEOUT" $mcp.sessionTimeout
  "AUTH_MODE" $mcp.auth.mode
  "OIDC_ISSUER" $mcp.auth.oidc.issuers
  "OIDC_AUDIENCE" $mcp.auth.oidc.audience
  "OIDC_MAX_TOKEN_LIFETIME" $mcp.auth.oidc.maxTokenLifetime
  "OIDC_CLIENT_ID" $mcp.auth.oidc.clientId
  "AUTH_JWKS_ISSUER" $mcp.auth.jwks.issuer
  "ENVIRONMENT" $mcp.environment
  "TOOLS" $mcp.tools
  "DISABLED_TOOLS" $mcp.disabledTools
  "AUDIT_SINKS" $mcp.audit.sinks
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

{{/* Settings that are a file each, as a JSON array: which variable names it, its name, and the key of a Secret or ConfigMap that it is. */}}
{{- define "kafscale-mcp.files" -}}
{{- $mcp := .Values.mcp -}}
{{- $own := include "kafscale-mcp.fullname" . -}}
{{- $files := list -}}

{{- range list
  (list "AUTH_TOKEN" "auth-token" $mcp.auth.token $mcp.auth.existingSecret $mcp.auth.existingSecretKey)
  (list "OIDC_CLIENT_SECRET" "oidc-client-secret" $mcp.auth.oidc.clientSecret $mcp.auth.oidc.existingSecret $mcp.auth.oidc.existingSecretKey)
  (list "ETCD_PASSWORD" "etcd-password" $mcp.etcd.password $mcp.etcd.existingSecret $mcp.etcd.existingSecretKeys.password)
-}}
{{- if index . 2 -}}
{{- $files = append $files (dict "variable" (index . 0) "path" (index . 1) "secret" $own "key" (index . 1)) -}}
{{- else if index . 3 -}}
{{- $files = append $files (dict "variable" (index . 0) "path" (index . 1) "secret" (index . 3) "key" (index . 4)) -}}
{{- end -}}
{{- end -}}

{{- range list
  (list "ETCD_CA" "etcd-ca.crt" $mcp.etcd.tls.ca.existingConfigMap $mcp.etcd.tls.ca.existingSecret $mcp.etcd.tls.ca.key)
  (list "ETCD_CERT" "etcd.crt" "" $mcp.etcd.tls.client.existingSecret $mcp.etcd.tls.client.certKey)
  (list "ETCD_KEY" "etcd.key" "" $mcp.etcd.tls.client.existingSecret $mcp.etcd.tls.client.keyKey)
  (list "AUTH_JWKS" "jwks.json" $mcp.auth.jwks.existingConfigMap $mcp.auth.jwks.existingSecret $mcp.auth.jwks.key)
  (list "TLS_CERT" "tls.crt" "" $mcp.tls.existingSecret $mcp.tls.certKey)
  (list "TLS_KEY" "tls.key" "" $mcp.tls.existingSecret $mcp.tls.keyKey)
  (list "TLS_CLIENT_CA" "client-ca.crt" $mcp.tls.clientCA.existingConfigMap $mcp.tls.clientCA.existingSecret $mcp.tls.clientCA.key)
  (list "AUDIT_SIGNING_KEY" "audit.key" "" $mcp.audit.signingKey.existingSecret $mcp.audit.signingKey.key)
  (list "POLICY" "policy.yaml" (include "kafscale-mcp.policyConfigMap" $) "" (ternary $mcp.policy.key "policy.yaml" (ne $mcp.policy.existingConfigMap "")))
-}}
{{- if index . 2 -}}
{{- $files = append $files (dict "variable" (index . 0) "path" (index . 1) "configMap" (index . 2) "key" (index . 4)) -}}
{{- else if index . 3 -}}
{{- $files = append $files (dict "variable" (index . 0) "path" (index . 1) "secret" (index . 3) "key" (index . 4)) -}}
{{- end -}}
{{- end -}}

{{- toJson $files -}}
{{- end -}}

{{/* Empty without a policy. */}}
{{- define "kafscale-mcp.policyConfigMap" -}}
{{- with .Values.mcp.policy -}}
{{- if .existingConfigMap -}}
{{- .existingConfigMap -}}
{{- else if or .roles .bindings -}}
{{- include "kafscale-mcp.fullname" $ }}-policy
{{- end -}}
{{- end -}}
{{- end -}}

{{/* True where an audit file is written. */}}
{{- define "kafscale-mcp.hasAuditFile" -}}
{{- range .Values.mcp.audit.sinks -}}
{{- if hasPrefix "file:" . }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The ports of what the service calls, as a JSON array. */}}
{{- define "kafscale-mcp.egressPorts" -}}
{{- $mcp := .Values.mcp -}}
{{- $metrics := splitList "," (default "" $mcp.metrics.brokerMetricsURL | replace " " "") -}}
{{- $urls := list -}}
{{- range $mcp.etcdEndpoints -}}
{{- $urls = append $urls (list . "2379" "2379") -}}
{{- end -}}
{{- range $metrics -}}
{{- $urls = append $urls (list (ternary "http://broker:9093" . (eq . "auto")) "80" "443") -}}
{{- end -}}
{{- range concat $mcp.auth.oidc.issuers $mcp.audit.sinks -}}
{{- $urls = append $urls (list . "80" "443") -}}
{{- end -}}
{{- range $mcp.extraEnv -}}
{{- if and (regexMatch "^OTEL_EXPORTER_OTLP_.*ENDPOINT$" .name) .value -}}
{{- $urls = append $urls (list .value "80" "443") -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range $urls -}}
{{- $url := first . | trim -}}
{{- if not (regexMatch "^(stdout|none|file:.*)?$" $url) -}}
{{- $authority := regexFind "^[^/?#]*" (regexReplaceAll "^https?://" $url "") -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $authority) -}}
{{- $ports = append $ports (int (default (ternary (index . 2) (index . 1) (hasPrefix "https:" $url)) $port)) -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end -}}
