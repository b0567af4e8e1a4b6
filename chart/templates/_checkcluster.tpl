{{/* Fails the render if Kubernetes would refuse the rules of the NetworkPolicy or the class of the Ingress. */}}
{{- define "kafscale-mcp.checkNetwork" -}}
{{- $mcp := .Values.mcp -}}
{{- $class := get $mcp.ingress.annotations "kubernetes.io/ingress.class" -}}
{{- if and $mcp.ingress.enabled $mcp.ingress.className $class (ne $class $mcp.ingress.className) -}}
{{- fail (printf (print
  "mcp.ingress.className is %s, but mcp.ingress.annotations sets kubernetes.io/ingress.class to %s, which Kubernetes "
  "refuses: remove the annotation")
  $mcp.ingress.className $class) -}}
{{- end -}}
{{- range $name, $rules := dict
  "extraIngress" $mcp.networkPolicy.extraIngress "extraEgress" $mcp.networkPolicy.extraEgress -}}
{{- $where := printf "mcp.networkPolicy.%s" $name -}}
{{- range $rules -}}
{{- range .ports -}}
{{- if hasKey . "endPort" -}}
{{- if or (not .port) (kindIs "string" .port) -}}
{{- fail (printf (print
  "%s contains the endPort %v without a port number, which Kubernetes refuses: set port to the first number of the "
  "range, or remove endPort")
  $where .endPort) -}}
{{- end -}}
{{- if lt (int .endPort) (int .port) -}}
{{- fail (printf
  "%s contains the endPort %v, which is less than its port, %v: set the higher number as endPort"
  $where .endPort .port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range concat (default list .from) (default list .to) -}}
{{- with .ipBlock -}}
{{- $cidr := .cidr -}}
{{- range .except -}}
{{- if not (include "kafscale-mcp.isWithin" (dict "inner" . "outer" $cidr)) -}}
{{- fail (printf (print
  "%s excepts %s, which is not a part of its cidr, %s: set a smaller range within the cidr, or remove it from except")
  $where . $cidr) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Not empty if a CIDR range, `inner`, is smaller than another one, `outer`, and within it. Of IPv6 ranges, only their
sizes are compared.
*/}}
{{- define "kafscale-mcp.isWithin" -}}
{{- $inner := splitList "/" .inner -}}
{{- $outer := splitList "/" .outer -}}
{{- $isIPv6 := contains ":" .outer -}}
{{- if and (eq (contains ":" .inner) $isIPv6) (gt (last $inner | int) (last $outer | int)) -}}
{{- $size := 1 -}}
{{- if not $isIPv6 }}{{ range until (sub 32 (last $outer | int) | int) }}{{ $size = mul 2 $size }}{{ end }}{{ end -}}
{{- $blocks := list -}}
{{- range list (first $inner) (first $outer) -}}
{{- $number := 0 -}}
{{- if not $isIPv6 -}}
{{- range splitList "." . }}{{ $number = add (mul 256 $number) (int .) }}{{ end -}}
{{- end -}}
{{- $blocks = append $blocks (div $number $size) -}}
{{- end -}}
{{- if eq (first $blocks | int64) (last $blocks | int64) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/*
Fails the render if an upgrade would change what Kubernetes keeps, which it would refuse after other objects have
changed. Without access to the cluster, as in `helm template`, nothing is compared.
*/}}
{{- define "kafscale-mcp.checkUpgrade" -}}
{{- $mcp := .Values.mcp -}}
{{- $fullname := include "kafscale-mcp.fullname" . -}}
{{- with lookup "apps/v1" "Deployment" $mcp.namespace.name $fullname -}}
{{- $labels := include "kafscale-mcp.selectorLabels" $ | fromYaml -}}
{{- $existing := default dict (default dict .spec.selector).matchLabels -}}
{{- if ne (toJson $existing) (toJson $labels) -}}
{{- fail (printf (print
  "the Deployment %s selects its pods by the labels %s, which Kubernetes does not let an upgrade change to %s: "
  "set nameOverride as it was, or delete the Deployment before the upgrade")
  $fullname (toJson $existing) (toJson $labels)) -}}
{{- end -}}
{{- end -}}
{{- range $volume, $suffix := dict "persistence" "audit" "headFile" "audit-head" -}}
{{- $values := get $mcp.audit $volume -}}
{{- $where := printf "mcp.audit.%s" $volume -}}
{{- $name := printf "%s-%s" $fullname $suffix -}}
{{- if and $values.enabled (not $values.existingClaim) -}}
{{- with lookup "v1" "PersistentVolumeClaim" $mcp.namespace.name $name -}}
{{- $advice := "set it as it was, or set existingClaim to a claim that you create" -}}
{{- if ne (sortAlpha .spec.accessModes | toJson) (sortAlpha $values.accessModes | toJson) -}}
{{- fail (printf
  "%s.accessModes is [%s], but the existing claim %s has [%s], which Kubernetes does not change: %s"
  $where (join ", " $values.accessModes) $name (join ", " .spec.accessModes) $advice) -}}
{{- end -}}
{{- if and $values.storageClass (ne $values.storageClass (toString .spec.storageClassName)) -}}
{{- fail (printf
  "%s.storageClass is %s, but the existing claim %s has %v, which Kubernetes does not change: %s"
  $where $values.storageClass $name .spec.storageClassName $advice) -}}
{{- end -}}
{{- $size := .spec.resources.requests.storage -}}
{{- if lt (include "kafscale-mcp.quantity" $values.size | float64) (include "kafscale-mcp.quantity" $size | float64) -}}
{{- fail (printf
  "%s.size is %s, but the existing claim %s has %v, and claims do not shrink: %s"
  $where $values.size $name $size $advice) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
