{{/* Refuses, in a sentence, what would not start or would not be safe. */}}
{{- define "kafscale-mcp.check" -}}
{{- $mcp := .Values.mcp -}}
{{- $auth := $mcp.auth -}}

{{- if not $mcp.etcdEndpoints -}}
{{- fail "mcp.etcdEndpoints is empty: expected etcd's client URLs, such as [\"http://etcd.kafscale.svc:2379\"]" -}}
{{- end -}}

{{- if and $auth.token $auth.existingSecret -}}
{{- fail "mcp.auth.token and mcp.auth.existingSecret are both set: expected only one of them" -}}
{{- end -}}
{{- if and $auth.token (not (regexMatch "^[\\x21-\\x7e]{32,}$" $auth.token)) -}}
{{- fail "mcp.auth.token is not valid: expected at least 32 characters, all of them visible ASCII, such as the output of openssl rand -hex 32" -}}
{{- end -}}
{{- $static := or $auth.token $auth.existingSecret -}}
{{- $jwks := or $auth.jwks.existingConfigMap $auth.jwks.existingSecret -}}
{{- $modes := list -}}
{{- if $auth.oidc.issuers }}{{ $modes = append $modes "oidc" }}{{ end -}}
{{- if $jwks }}{{ $modes = append $modes "jwks" }}{{ end -}}
{{- if $static }}{{ $modes = append $modes "token" }}{{ end -}}
{{- if not $modes -}}
{{- fail "nothing says who may call: set mcp.auth.oidc.issuers (an identity provider), mcp.auth.jwks.existingConfigMap (keys of your own), mcp.auth.existingSecret or mcp.auth.token (one shared secret)" -}}
{{- end -}}
{{- if gt (len $modes) 1 -}}
{{- fail (printf "mcp.auth has settings of %s: expected one way to authenticate" (join " and " $modes)) -}}
{{- end -}}
{{- if and $auth.mode (ne $auth.mode (first $modes)) -}}
{{- fail (printf "mcp.auth.mode is %s and the settings are those of %s: expected one or the other" $auth.mode (first $modes)) -}}
{{- end -}}
{{- if and $static (not $auth.allowStaticToken) -}}
{{- fail "mcp.auth has a static token, and mcp.auth.allowStaticToken is false: expected mcp.auth.oidc or mcp.auth.jwks" -}}
{{- end -}}
{{- if ne (empty $jwks) (empty $auth.jwks.issuer) -}}
{{- fail "mcp.auth.jwks needs its keys (existingConfigMap or existingSecret) and issuer: expected both or neither" -}}
{{- end -}}
{{- $client := or $auth.oidc.clientSecret $auth.oidc.existingSecret -}}
{{- if ne (empty $client) (empty $auth.oidc.clientId) -}}
{{- fail "mcp.auth.oidc needs clientId and its secret (existingSecret or clientSecret): expected both or neither" -}}
{{- end -}}
{{- if and $client (not $auth.oidc.issuers) -}}
{{- fail "mcp.auth.oidc.clientId is set and mcp.auth.oidc.issuers is not: expected the identity provider that introspects" -}}
{{- end -}}

{{- if and $mcp.etcd.password $mcp.etcd.existingSecret -}}
{{- fail "mcp.etcd.password and mcp.etcd.existingSecret are both set: expected only one of them" -}}
{{- end -}}
{{- if and (not $mcp.etcd.existingSecret) (ne (empty $mcp.etcd.username) (empty $mcp.etcd.password)) -}}
{{- fail "mcp.etcd needs username and password: expected both or neither" -}}
{{- end -}}
{{- if and (or $mcp.etcd.tls.ca.existingConfigMap $mcp.etcd.tls.ca.existingSecret $mcp.etcd.tls.client.existingSecret) (not (regexMatch "(^|,)https:" (join "," $mcp.etcdEndpoints))) -}}
{{- fail "mcp.etcd.tls is set and no URL of mcp.etcdEndpoints is https: expected one" -}}
{{- end -}}
{{- if and (include "kafscale-mcp.asksForClientCertificates" .) (not $mcp.tls.existingSecret) -}}
{{- fail "mcp.tls.clientCA is set and mcp.tls.existingSecret is not: expected a certificate of this service, since only TLS asks for the client's" -}}
{{- end -}}

{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" $mcp.httpAddr -}}
{{- fail (printf "mcp.httpAddr is %s: nobody outside the pod reaches that; expected an address such as :8090" $mcp.httpAddr) -}}
{{- end -}}
{{- range $source, $what := dict
  "mcp.etcd.tls.ca" $mcp.etcd.tls.ca
  "mcp.auth.jwks" $auth.jwks
  "mcp.tls.clientCA" $mcp.tls.clientCA
-}}
{{- if and $what.existingConfigMap $what.existingSecret -}}
{{- fail (printf "%s.existingConfigMap and %s.existingSecret are both set: expected only one of them" $source $source) -}}
{{- end -}}
{{- end -}}
{{- if and $mcp.policy.existingConfigMap (or $mcp.policy.roles $mcp.policy.bindings) -}}
{{- fail "mcp.policy.existingConfigMap is set, and so are roles or bindings: expected one or the other" -}}
{{- end -}}

{{- if and (ne $mcp.service.type "ClusterIP") (not $mcp.tls.existingSecret) (not (and $mcp.service.allowPlainHTTP $auth.allowTokensInClear)) -}}
{{- fail (printf "mcp.service.type is %s without mcp.tls: whoever is on the way reads the tokens. Set mcp.tls.existingSecret, or both mcp.service.allowPlainHTTP and mcp.auth.allowTokensInClear" $mcp.service.type) -}}
{{- end -}}
{{- if and $mcp.ingress.enabled (not (and $mcp.ingress.allowPlainHTTP $auth.allowTokensInClear)) -}}
{{- $covered := list -}}
{{- range $mcp.ingress.tls }}{{ $covered = concat $covered (default list .hosts) }}{{ end -}}
{{- range $mcp.ingress.hosts -}}
{{- if not (or (has .host $covered) (has (regexReplaceAll "^[^.]+" .host "*") $covered)) -}}
{{- fail (printf "mcp.ingress.hosts has %s and mcp.ingress.tls has not: whoever is on the way reads the tokens. Add it there, or set both mcp.ingress.allowPlainHTTP and mcp.auth.allowTokensInClear" .host) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $folders := list $mcp.audit.mountPath -}}
{{- range $mcp.extraVolumeMounts }}{{ $folders = append $folders .mountPath }}{{ end -}}
{{- range $sink := $mcp.audit.sinks -}}
{{- if hasPrefix "file:" $sink -}}
{{- $path := regexReplaceAll "^file:(//)?" $sink "" -}}
{{- $mounted := false -}}
{{- range $folders }}{{ if hasPrefix (printf "%s/" (trimSuffix "/" .)) $path }}{{ $mounted = true }}{{ end }}{{ end -}}
{{- if or (not $mounted) (contains "/../" $path) -}}
{{- fail (printf "mcp.audit.sinks has %s: the root file system is read-only; expected a file in mcp.audit.mountPath (%s) or on one of mcp.extraVolumeMounts" $sink $mcp.audit.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $mcp.audit.persistence -}}
{{- if and .enabled (not (include "kafscale-mcp.hasAuditFile" $)) -}}
{{- fail (printf "mcp.audit.persistence is enabled and mcp.audit.sinks has no file: expected one such as file:%s/audit.jsonl" $mcp.audit.mountPath) -}}
{{- end -}}
{{- if and .enabled (include "kafscale-mcp.hasReplicas" $) (not (has "ReadWriteMany" .accessModes)) -}}
{{- fail "mcp.audit.persistence is a volume that only one replica can mount, and there can be more: expected ReadWriteMany in accessModes, one replica, or other sinks" -}}
{{- end -}}
{{- end -}}

{{- range $mcp.extraEnv -}}
{{- if has .name (list "KAFSCALE_MCP_AUTH_TOKEN" "KAFSCALE_MCP_ETCD_PASSWORD" "KAFSCALE_MCP_OIDC_CLIENT_SECRET") -}}
{{- fail (printf "mcp.extraEnv has %s: expected secrets in mcp.auth and mcp.etcd, which reach the pod as files" .name) -}}
{{- end -}}
{{- end -}}

{{- if not (include "kafscale-mcp.telemetryPort" .) -}}
{{- if $mcp.telemetry.serviceMonitor.enabled -}}
{{- fail (printf "mcp.telemetry.serviceMonitor is enabled and mcp.telemetry.addr is %s: expected an address that a Prometheus reaches, such as :9090" $mcp.telemetry.addr) -}}
{{- end -}}
{{- end -}}
{{- if and $mcp.autoscaling.enabled (gt (int $mcp.autoscaling.minReplicas) (int $mcp.autoscaling.maxReplicas)) -}}
{{- fail "mcp.autoscaling.minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- end -}}
