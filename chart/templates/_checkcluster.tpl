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

{{/* Not empty if a CIDR range, `inner`, is smaller than another one, `outer`, and within it. */}}
{{- define "kafscale-mcp.isWithin" -}}
{{- $inner := splitList "/" .inner -}}
{{- $outer := splitList "/" .outer -}}
{{- $size := last $outer | int -}}
{{- if and (eq (contains ":" .inner) (contains ":" .outer)) (gt (last $inner | int) $size) -}}
{{- $bits := first $inner | include "kafscale-mcp.bits" | trunc $size -}}
{{- if eq $bits (first $outer | include "kafscale-mcp.bits" | trunc $size) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The bits of an IP address. */}}
{{- define "kafscale-mcp.bits" -}}
{{- if contains ":" . -}}
{{- $halves := splitList "::" . -}}
{{- $before := splitList ":" (first $halves) | compact -}}
{{- $after := splitList ":" (rest $halves | join "") | compact -}}
{{- range $before }}{{ print "0x" . | int64 | printf "%016b" }}{{ end -}}
{{- repeat (concat $before $after | len | sub 8 | mul 16 | int) "0" -}}
{{- range $after }}{{ print "0x" . | int64 | printf "%016b" }}{{ end -}}
{{- else -}}
{{- range splitList "." . }}{{ int . | printf "%08b" }}{{ end -}}
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
