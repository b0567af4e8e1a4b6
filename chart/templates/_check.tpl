{{/* Fails the render if the service would not start or would be unsafe. Messages name the values to set. */}}
{{- define "kafscale-mcp.check" -}}
{{- $mcp := .Values.mcp -}}
{{- $auth := $mcp.auth -}}

{{- if not $mcp.etcdEndpoints -}}
{{- fail "mcp.etcdEndpoints is empty: set etcd's client URLs, such as [\"http://etcd.kafscale.svc:2379\"]" -}}
{{- end -}}

{{- if and $auth.token $auth.existingSecret -}}
{{- fail "mcp.auth.token and mcp.auth.existingSecret are both set: set only one of them" -}}
{{- end -}}
{{- if and $auth.token (not (regexMatch "^[\\x21-\\x7e]{32,}$" $auth.token)) -}}
{{- fail (print
  "mcp.auth.token is invalid: set at least 32 visible ASCII characters, "
  "such as the output of openssl rand -hex 32") -}}
{{- end -}}
{{- $static := or $auth.token $auth.existingSecret -}}
{{- $jwks := or $auth.jwks.existingConfigMap $auth.jwks.existingSecret -}}
{{- $modes := list -}}
{{- if $auth.oidc.issuers }}{{ $modes = append $modes "oidc" }}{{ end -}}
{{- if $jwks }}{{ $modes = append $modes "jwks" }}{{ end -}}
{{- if $static }}{{ $modes = append $modes "token" }}{{ end -}}
{{- if not $modes -}}
{{- fail (print
  "no authentication is configured: set mcp.auth.oidc.issuers (an identity provider), mcp.auth.jwks (your own keys), "
  "or mcp.auth.existingSecret or mcp.auth.token (one shared secret)") -}}
{{- end -}}
{{- if gt (len $modes) 1 -}}
{{- $never := "" -}}
{{- if $static -}}
{{- $never = ". A static token next to another mode is refused, whatever mcp.auth.allowStaticToken is" -}}
{{- end -}}
{{- fail (printf
  "mcp.auth configures more than one mode, %s: keep the settings of one%s" (join " and " $modes) $never) -}}
{{- end -}}
{{- if and $auth.mode (ne $auth.mode (first $modes)) -}}
{{- fail (printf
  "mcp.auth.mode is %s, but the other settings in mcp.auth are for %s: change mcp.auth.mode or the settings"
  $auth.mode (first $modes)) -}}
{{- end -}}
{{- if and $static (not $auth.allowStaticToken) -}}
{{- fail (print
  "mcp.auth.allowStaticToken is false, but a static token is set: "
  "remove mcp.auth.token and mcp.auth.existingSecret, and set mcp.auth.oidc or mcp.auth.jwks") -}}
{{- end -}}
{{- if ne (empty $jwks) (empty $auth.jwks.issuer) -}}
{{- fail (print
  "mcp.auth.jwks is incomplete: set mcp.auth.jwks.issuer together with "
  "mcp.auth.jwks.existingConfigMap or mcp.auth.jwks.existingSecret") -}}
{{- end -}}
{{- $client := or $auth.oidc.clientSecret $auth.oidc.existingSecret -}}
{{- if ne (empty $client) (empty $auth.oidc.clientId) -}}
{{- fail (print
  "the client in mcp.auth.oidc is incomplete: set mcp.auth.oidc.clientId together with "
  "mcp.auth.oidc.existingSecret or mcp.auth.oidc.clientSecret") -}}
{{- end -}}
{{- if and $client (not $auth.oidc.issuers) -}}
{{- fail (print
  "mcp.auth.oidc.clientId is set, but mcp.auth.oidc.issuers is empty: "
  "set the identity provider that introspects tokens") -}}
{{- end -}}

{{- if and $mcp.etcd.password $mcp.etcd.existingSecret -}}
{{- fail "mcp.etcd.password and mcp.etcd.existingSecret are both set: set only one of them" -}}
{{- end -}}
{{- if and (not $mcp.etcd.existingSecret) (ne (empty $mcp.etcd.username) (empty $mcp.etcd.password)) -}}
{{- fail "only one of mcp.etcd.username and mcp.etcd.password is set: set both or neither" -}}
{{- end -}}
{{- $etcdTLS := $mcp.etcd.tls -}}
{{- if and (or $etcdTLS.ca.existingConfigMap $etcdTLS.ca.existingSecret $etcdTLS.client.existingSecret)
  (not (regexMatch "(^|,)https:" (join "," $mcp.etcdEndpoints))) -}}
{{- fail (print
  "mcp.etcd.tls is set, but no URL in mcp.etcdEndpoints is https: "
  "use https URLs, or remove mcp.etcd.tls") -}}
{{- end -}}
{{- $collector := $mcp.audit.collector -}}
{{- $collectorTLS := $collector.tls -}}
{{- if and $collector.headers.existingSecret (not (regexMatch "(^|,)https?:" (join "," $mcp.audit.sinks))) -}}
{{- fail (print
  "mcp.audit.collector.headers is set, but mcp.audit.sinks has no URL: "
  "add the collector's URL, or remove mcp.audit.collector.headers") -}}
{{- end -}}
{{- if and
  (or $collectorTLS.ca.existingConfigMap $collectorTLS.ca.existingSecret $collectorTLS.client.existingSecret)
  (not (regexMatch "(^|,)https:" (join "," $mcp.audit.sinks))) -}}
{{- fail (print
  "mcp.audit.collector.tls is set, but no URL in mcp.audit.sinks is https: "
  "use https URLs, or remove mcp.audit.collector.tls") -}}
{{- end -}}
{{- if and (include "kafscale-mcp.asksForClientCertificates" .) (not $mcp.tls.existingSecret) -}}
{{- fail (print
  "mcp.tls.clientCA is set, but mcp.tls.existingSecret is not: "
  "client certificates require TLS, so set the Secret with the service's own certificate") -}}
{{- end -}}

{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" $mcp.httpAddr -}}
{{- fail (printf
  "mcp.httpAddr is %s, which only the pod itself can reach: set an address such as :8090"
  $mcp.httpAddr) -}}
{{- end -}}
{{- range $source, $value := dict
  "mcp.etcd.tls.ca" $mcp.etcd.tls.ca
  "mcp.auth.jwks" $auth.jwks
  "mcp.tls.clientCA" $mcp.tls.clientCA
  "mcp.audit.collector.tls.ca" $mcp.audit.collector.tls.ca
-}}
{{- if and $value.existingConfigMap $value.existingSecret -}}
{{- fail (printf
  "%s.existingConfigMap and %s.existingSecret are both set: set only one of them"
  $source $source) -}}
{{- end -}}
{{- end -}}
{{- if and $mcp.policy.existingConfigMap (include "kafscale-mcp.inlinePolicy" .) -}}
{{- fail (print
  "mcp.policy.existingConfigMap is set together with other values of mcp.policy: "
  "set either the ConfigMap or the policy itself") -}}
{{- end -}}

{{- if and (ne $mcp.service.type "ClusterIP") (not $mcp.tls.existingSecret)
  (not (and $mcp.service.allowPlainHTTP $auth.allowTokensInClear)) -}}
{{- fail (printf (print
  "mcp.service.type is %s without TLS, so tokens would cross the network in clear text: "
  "set mcp.tls.existingSecret. If the load balancer terminates TLS, set mcp.publicURL to its https URL, and both "
  "mcp.service.allowPlainHTTP and mcp.auth.allowTokensInClear, which accept plain HTTP behind it")
  $mcp.service.type) -}}
{{- end -}}
{{- if and $mcp.ingress.enabled (not (and $mcp.ingress.allowPlainHTTP $auth.allowTokensInClear)) -}}
{{- $covered := list -}}
{{- range $mcp.ingress.tls }}{{ $covered = concat $covered (default list .hosts) }}{{ end -}}
{{- range $mcp.ingress.hosts -}}
{{- if not (or (has .host $covered) (has (regexReplaceAll "^[^.]+" .host "*") $covered)) -}}
{{- fail (printf (print
  "%s in mcp.ingress.hosts has no TLS, so tokens would cross the network in clear text: "
  "add the host to mcp.ingress.tls. If a load balancer terminates TLS with a certificate of its own, set "
  "mcp.ingress.tls to [{hosts: [%s]}], without a secretName, and mcp.publicURL to the https URL of clients. To accept "
  "clear text, set both mcp.ingress.allowPlainHTTP and mcp.auth.allowTokensInClear")
  .host .host) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and $mcp.ingress.enabled $mcp.publicURL -}}
{{- $url := urlParse $mcp.publicURL -}}
{{- $endpoint := printf "%s/mcp" (trimSuffix "/" $url.path) -}}
{{- range $mcp.ingress.hosts -}}
{{- if eq .host (regexReplaceAll ":[0-9]+$" $url.host "") -}}
{{- $routed := false -}}
{{- range .paths -}}
{{- $path := trimSuffix "/" .path -}}
{{- $isPattern := regexMatch "[^A-Za-z0-9/._~%-]" $path -}}
{{- $isAbove := and (ne (default "Prefix" .pathType) "Exact") (hasPrefix (printf "%s/" $path) $endpoint) -}}
{{- if or $isPattern $isAbove (eq $path $endpoint) }}{{ $routed = true }}{{ end -}}
{{- end -}}
{{- if not $routed -}}
{{- fail (printf (print
  "mcp.publicURL is %s, but no path of %s in mcp.ingress.hosts routes %s: "
  "add the path, or remove mcp.publicURL, which then follows the ingress")
  $mcp.publicURL .host $endpoint) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with $mcp.networkPolicy -}}
{{- if and .enabled $mcp.ingress.enabled (not $mcp.ingress.controllerNamespace) (not .extraIngress) -}}
{{- fail (print
  "mcp.ingress.enabled is true, but mcp.ingress.controllerNamespace is empty, so the NetworkPolicy would admit no call "
  "from the ingress controller: set the namespace of the controller's pods, such as ingress-nginx; if the controller "
  "is no pod, admit its addresses in mcp.networkPolicy.extraIngress") -}}
{{- end -}}
{{- if and .enabled $mcp.telemetry.serviceMonitor.enabled (not (compact .metricsNamespaces)) (not .extraIngress) -}}
{{- fail (print
  "mcp.telemetry.serviceMonitor.enabled is true, but mcp.networkPolicy.metricsNamespaces is empty, so the "
  "NetworkPolicy would admit no scrape: set Prometheus's namespace, such as monitoring") -}}
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
{{- fail (printf (print
  "%s in mcp.audit.sinks is not on a writable volume, and the root file system is read-only: "
  "use a path below mcp.audit.mountPath (%s) or below a mountPath of mcp.extraVolumeMounts")
  $sink $mcp.audit.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $mcp.audit.persistence -}}
{{- if and .enabled (not (include "kafscale-mcp.hasAuditFile" $)) -}}
{{- fail (printf
  "mcp.audit.persistence.enabled is true, but mcp.audit.sinks has no file: add one, such as file:%s/audit.jsonl"
  $mcp.audit.mountPath) -}}
{{- end -}}
{{- if and .enabled (include "kafscale-mcp.hasReplicas" $) (not (has "ReadWriteMany" .accessModes)) -}}
{{- fail (print
  "mcp.audit.persistence is enabled for more than one replica, but only one can mount the volume: "
  "add ReadWriteMany to mcp.audit.persistence.accessModes, run one replica, or use other mcp.audit.sinks") -}}
{{- end -}}
{{- end -}}

{{- with $mcp.audit.headFile -}}
{{- $files := 0 -}}
{{- range $mcp.audit.sinks }}{{ if hasPrefix "file:" . }}{{ $files = add1 $files }}{{ end }}{{ end -}}
{{- if and .enabled (ne (int $files) 1) -}}
{{- fail (printf (print
  "mcp.audit.headFile.enabled is true, but mcp.audit.sinks contains %d files: "
  "set exactly one, such as file:%s/audit.jsonl")
  (int $files) $mcp.audit.mountPath) -}}
{{- end -}}
{{- if and .enabled (not $mcp.audit.persistence.enabled) -}}
{{- fail (print
  "mcp.audit.headFile.enabled is true, but mcp.audit.persistence.enabled is not, so the head file would outlive the "
  "log, and the next pod would refuse calls: set mcp.audit.persistence.enabled to true") -}}
{{- end -}}
{{- if and .enabled (include "kafscale-mcp.hasReplicas" $) (not (has "ReadWriteMany" .accessModes)) -}}
{{- fail (print
  "mcp.audit.headFile is enabled for more than one replica, but only one can mount the volume: "
  "add ReadWriteMany to mcp.audit.headFile.accessModes, or run one replica") -}}
{{- end -}}
{{- if and .enabled .existingClaim (eq .existingClaim $mcp.audit.persistence.existingClaim) -}}
{{- fail (print
  "mcp.audit.headFile.existingClaim is the claim of the audit files: whoever can change the log could change the head "
  "file too, so set another claim") -}}
{{- end -}}
{{- if and .enabled (or
  (hasPrefix (printf "%s/" .mountPath) (printf "%s/" $mcp.audit.mountPath))
  (hasPrefix (printf "%s/" $mcp.audit.mountPath) (printf "%s/" .mountPath))) -}}
{{- fail (printf
  "mcp.audit.headFile.mountPath (%s) and mcp.audit.mountPath (%s) overlap: set two separate paths"
  .mountPath $mcp.audit.mountPath) -}}
{{- end -}}
{{- end -}}

{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "kafscale-mcp.fullname" .)) -}}
{{- fail (printf (print
  "the release's objects would be named %s, which Kubernetes refuses as the name of a Service: set fullnameOverride to "
  "a name of lower-case letters, digits and hyphens that starts with a letter")
  (include "kafscale-mcp.fullname" .)) -}}
{{- end -}}
{{- if and $mcp.serviceAccount.create (eq $mcp.serviceAccount.name "default") -}}
{{- fail (print
  "mcp.serviceAccount.name is default, which exists in every namespace: "
  "set another name, or mcp.serviceAccount.create to false to use it") -}}
{{- end -}}
{{- if and $mcp.service.loadBalancerSourceRanges (ne $mcp.service.type "LoadBalancer") -}}
{{- fail (printf (print
  "mcp.service.loadBalancerSourceRanges is set, but mcp.service.type is %s: set the type to LoadBalancer, or remove "
  "the ranges; mcp.networkPolicy.extraIngress admits addresses to a Service of any type")
  $mcp.service.type) -}}
{{- end -}}
{{- range $volume, $modes := dict
  "persistence" $mcp.audit.persistence.accessModes "headFile" $mcp.audit.headFile.accessModes -}}
{{- if and (has "ReadWriteOncePod" $modes) (gt (len $modes) 1) -}}
{{- fail (printf (print
  "mcp.audit.%s.accessModes contains ReadWriteOncePod and other modes, which Kubernetes refuses: "
  "keep ReadWriteOncePod alone, or remove it")
  $volume) -}}
{{- end -}}
{{- end -}}
{{- $secrets := list -}}
{{- range include "kafscale-mcp.pullSecretNames" . | fromJsonArray -}}
{{- if has . $secrets }}{{ fail (printf "imagePullSecrets contains %s twice: keep one entry" .) }}{{ end -}}
{{- $secrets = append $secrets . -}}
{{- end -}}
{{- if $mcp.ingress.enabled -}}
{{- range $mcp.ingress.hosts -}}
{{- range .paths -}}
{{- if and (ne (default "Prefix" .pathType) "ImplementationSpecific")
  (regexMatch "(//|/\\.\\.?(/|$)|%2[fF])" .path) -}}
{{- fail (printf (print
  "the path %s in mcp.ingress.hosts contains //, /./, /../ or an encoded slash, which Kubernetes refuses with the "
  "pathType %s: change the path, or set pathType to ImplementationSpecific")
  .path (default "Prefix" .pathType)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $mcp.changes.enabled }}{{ include "kafscale-mcp.checkChanges" . }}{{ end -}}
{{- include "kafscale-mcp.checkPod" . -}}
{{- include "kafscale-mcp.checkNetwork" . -}}
{{- include "kafscale-mcp.checkUpgrade" . -}}

{{- $fromOf := dict -}}
{{- range include "kafscale-mcp.variables" . | fromJsonArray -}}
{{- $_ := set $fromOf (trimSuffix "_FILE" .name) .from -}}
{{- end -}}
{{- $names := list -}}
{{- $secrets := list "KAFSCALE_MCP_AUTH_TOKEN" "KAFSCALE_MCP_ETCD_PASSWORD" "KAFSCALE_MCP_OIDC_CLIENT_SECRET" -}}
{{- $ofChanges := include "kafscale-mcp.changesSettings" . | fromJson -}}
{{- range include "kafscale-mcp.changesFiles" . | fromJsonArray }}{{ $_ := set $ofChanges .variable .from }}{{ end -}}
{{- range $entry := $mcp.extraEnv -}}
{{- with get $fromOf (trimSuffix "_FILE" .name) -}}
{{- fail (printf (print
  "mcp.extraEnv sets %s, which mcp.%s already sets: remove it from mcp.extraEnv, and set mcp.%s instead. "
  "Kubernetes would merge the two, and lose the variable when one of them is removed")
  $entry.name . .) -}}
{{- end -}}
{{- with get $ofChanges (.name | trimPrefix "KAFSCALE_MCP_" | trimSuffix "_FILE") -}}
{{- fail (printf (print
  "mcp.extraEnv sets %s: set mcp.%s instead, so that the chart can check the settings of changes and open the "
  "NetworkPolicy for them")
  $entry.name .) -}}
{{- end -}}
{{- if has (trimSuffix "_FILE" .name) $secrets -}}
{{- fail (printf
  "mcp.extraEnv sets the secret %s: set it in mcp.auth or mcp.etcd, which mount secrets as files"
  .name) -}}
{{- end -}}
{{- $port := "" -}}
{{- if or (contains "://" (default "" .value)) (include "kafscale-mcp.isDestination" .) -}}
{{- $port = include "kafscale-mcp.urlPort" .value -}}
{{- end -}}
{{- if and $port (or (not (regexMatch "^[1-9][0-9]{0,4}$" $port)) (gt (int $port) 65535)) -}}
{{- fail (printf "the URL in the variable %s of mcp.extraEnv has the port %s: use 1 to 65535" .name $port) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf (print
  "mcp.extraEnv sets %s twice: keep one entry. "
  "Kubernetes would merge the two, and lose the variable when one of them is removed")
  .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}

{{- $port := include "kafscale-mcp.port" . -}}
{{- if and (ne $mcp.telemetry.addr "off") (eq $port (regexFind "[0-9]+$" $mcp.telemetry.addr)) -}}
{{- fail (printf (print
  "mcp.httpAddr (%s) and mcp.telemetry.addr (%s) use the same port, which only one of them can listen on: "
  "change the port of one, or set mcp.telemetry.addr to off")
  $mcp.httpAddr $mcp.telemetry.addr) -}}
{{- end -}}

{{- if and $mcp.telemetry.serviceMonitor.enabled (not (include "kafscale-mcp.telemetryPort" .)) -}}
{{- fail (printf (print
  "mcp.telemetry.serviceMonitor.enabled is true, but mcp.telemetry.addr is %s, which Prometheus cannot reach: "
  "set an address such as :9090")
  $mcp.telemetry.addr) -}}
{{- end -}}
{{- if and $mcp.autoscaling.enabled (gt (int $mcp.autoscaling.minReplicas) (int $mcp.autoscaling.maxReplicas)) -}}
{{- fail (print
  "mcp.autoscaling.minReplicas is greater than mcp.autoscaling.maxReplicas: "
  "lower the minimum or raise the maximum") -}}
{{- end -}}
{{- end -}}
