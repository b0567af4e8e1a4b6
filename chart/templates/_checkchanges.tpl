{{/* Fails the render if changes are enabled and one of their settings is missing. Names everything that is missing. */}}
{{- define "kafscale-mcp.checkChanges" -}}
{{- $mcp := .Values.mcp -}}
{{- $changes := $mcp.changes -}}
{{- $mistakes := list -}}
{{- if or $mcp.auth.token $mcp.auth.existingSecret -}}
{{- $mistakes = append $mistakes (print
  "mcp.auth configures a static token, but a change belongs to whoever requested it: set mcp.auth.oidc or "
  "mcp.auth.jwks instead") -}}
{{- end -}}
{{- if not (include "kafscale-mcp.policyConfigMap" .) -}}
{{- $mistakes = append $mistakes (print
  "mcp.policy is empty: set mcp.policy.bindings and mcp.policy.roles, or mcp.policy.existingConfigMap, which say who "
  "may change what") -}}
{{- end -}}
{{- if not $changes.kafka.brokers -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.kafka.brokers is empty: set the brokers that changes are sent to, such as "
  "[\"kafscale-broker-0.kafscale.svc:9092\"]") -}}
{{- end -}}
{{- if not (trim $changes.expectedClusterId) -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.expectedClusterId is empty: set the id of the only cluster that may be changed, as cluster_status "
  "returns it") -}}
{{- end -}}
{{- if not (regexMatch "(^|,)(file:|https?:)" (join "," $mcp.audit.sinks)) -}}
{{- $mistakes = append $mistakes (printf (print
  "mcp.audit.sinks has no durable sink, without which nothing is changed: add a file, such as file:%s/audit.jsonl with "
  "mcp.audit.persistence, or the URL of a collector")
  $mcp.audit.mountPath) -}}
{{- end -}}

{{- $sasl := $changes.kafka.sasl -}}
{{- $saslPassword := or $sasl.password $sasl.existingSecret -}}
{{- if and (or $sasl.mechanism $sasl.username $saslPassword)
  (not (and $sasl.mechanism $sasl.username $saslPassword)) -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.kafka.sasl is incomplete: set its mechanism and username, and existingSecret or password") -}}
{{- end -}}
{{- $ledger := $changes.ledger -}}
{{- if and (not $ledger.existingSecret) (ne (empty $ledger.username) (empty $ledger.password)) -}}
{{- $mistakes = append $mistakes
  "only one of mcp.changes.ledger.username and mcp.changes.ledger.password is set: set both or neither" -}}
{{- end -}}
{{- $webhook := $changes.webhook -}}
{{- if and (not $webhook.existingSecret) (ne (empty $webhook.url) (empty $webhook.secret)) -}}
{{- $mistakes = append $mistakes (print
  "only one of mcp.changes.webhook.url and mcp.changes.webhook.secret is set: set both or neither, or "
  "mcp.changes.webhook.existingSecret") -}}
{{- end -}}
{{- with $changes.sessionKey.value -}}
{{- if not (regexMatch "^[A-Za-z0-9+/]{43}=( *, *[A-Za-z0-9+/]{43}=)?$" .) -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.sessionKey.value is invalid: set 32 bytes in base64, such as the output of openssl rand -base64 32, "
  "and at most one older key after a comma") -}}
{{- end -}}
{{- end -}}
{{- if and $changes.control.tls.enabled (not $changes.control.addr) -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.control.tls.enabled is true, but mcp.changes.control.addr is empty: set the address, such as "
  "{host}:19094") -}}
{{- end -}}
{{- range $path, $inline := dict
  "kafka.sasl.password" $sasl "ledger.password" $ledger "webhook.secret" $webhook
  "sessionKey.value" $changes.sessionKey -}}
{{- $name := last (splitList "." $path) -}}
{{- if and $inline.existingSecret (get $inline $name) -}}
{{- $mistakes = append $mistakes (printf
  "mcp.changes.%s and mcp.changes.%s.existingSecret are both set: set only one of them"
  $path (trimSuffix (print "." $name) $path)) -}}
{{- end -}}
{{- end -}}
{{- $tls := dict "kafka.tls" $changes.kafka.tls "control.tls" $changes.control.tls "ledger.tls" $ledger.tls -}}
{{- range $path, $files := $tls -}}
{{- if and $files.ca.existingConfigMap $files.ca.existingSecret -}}
{{- $mistakes = append $mistakes (printf
  "mcp.changes.%s.ca.existingConfigMap and mcp.changes.%s.ca.existingSecret are both set: set only one of them"
  $path $path) -}}
{{- end -}}
{{- $hasFiles := or $files.ca.existingConfigMap $files.ca.existingSecret $files.client.existingSecret -}}
{{- if and $hasFiles (hasKey $files "enabled") (not $files.enabled) -}}
{{- $mistakes = append $mistakes (printf
  "mcp.changes.%s has files, but mcp.changes.%s.enabled is false: set it to true, or remove the files"
  $path $path) -}}
{{- end -}}
{{- $endpoints := default $mcp.etcdEndpoints $ledger.endpoints -}}
{{- if and $hasFiles (eq $path "ledger.tls") (not (regexMatch "(^|,)https:" (join "," $endpoints))) -}}
{{- $mistakes = append $mistakes (print
  "mcp.changes.ledger.tls is set, but no URL in mcp.changes.ledger.endpoints, or else mcp.etcdEndpoints, is https: use "
  "https URLs, or remove mcp.changes.ledger.tls") -}}
{{- end -}}
{{- end -}}
{{- if $mistakes -}}
{{- fail (printf "mcp.changes.enabled is true, but\n- %s" (join "\n- " $mistakes)) -}}
{{- end -}}
{{- end -}}
