// Package charts renders the Helm chart and the Kustomize base, and decodes what they make strictly
// into the types of Kubernetes. It is a module of its own, so that nothing of it is in Rowhook's.
package charts

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	chart = "../../docs/deploy/helm/rowhook"
	base  = "../../docs/deploy/kustomize"
)

// program is the built rowhook, which scripts/charts makes: what is rendered is held to its flags.
var program = flag.String("rowhook", "", "the program, to which arguments and variables are held")

var scheme = runtime.NewScheme()

func TestMain(m *testing.M) {
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

// helm runs the tool. Its error holds what it wrote.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if args[0] == "template" {
		args = append(args, "--kube-version", "1.33.0") // as a cluster has; helm's own default depends on how it was built
	}
	var out, wrong bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "helm"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &wrong
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, wrong.String())
	}
	return out.String(), nil
}

// rendered is what a chart or a base makes, by kind.
type rendered struct {
	deployments []*appsv1.Deployment
	jobs        []*batchv1.Job
	pods        []*corev1.Pod
	configs     []*corev1.ConfigMap
	services    []*corev1.Service
	accounts    []*corev1.ServiceAccount
	budgets     []*policyv1.PodDisruptionBudget
	policies    []*networkingv1.NetworkPolicy
	monitors    []*unstructured.Unstructured
}

// decode reads objects strictly: a key that Kubernetes does not know is an error.
func decode(t *testing.T, text string) (r rendered) {
	t.Helper()
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Strict: true})
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var raw runtime.RawExtension
		err := documents.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return r
		}
		require.NoError(t, err)
		if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
			continue
		}
		if strings.Contains(string(raw.Raw), `"kind":"PodMonitor"`) {
			u := &unstructured.Unstructured{}
			require.NoError(t, u.UnmarshalJSON(raw.Raw))
			r.monitors = append(r.monitors, u)
			continue
		}
		object, _, err := strict.Decode(raw.Raw, nil, nil)
		require.NoError(t, err, "%s", raw.Raw)
		switch o := object.(type) {
		case *appsv1.Deployment:
			r.deployments = append(r.deployments, o)
		case *batchv1.Job:
			r.jobs = append(r.jobs, o)
		case *corev1.Pod:
			r.pods = append(r.pods, o)
		case *corev1.ConfigMap:
			r.configs = append(r.configs, o)
		case *corev1.Service:
			r.services = append(r.services, o)
		case *corev1.ServiceAccount:
			r.accounts = append(r.accounts, o)
		case *policyv1.PodDisruptionBudget:
			r.budgets = append(r.budgets, o)
		case *networkingv1.NetworkPolicy:
			r.policies = append(r.policies, o)
		case *corev1.Secret:
			require.Fail(t, "a secret is made by whoever installs")
		default:
			require.Fail(t, "unexpected object", "%T", o)
		}
	}
}

func render(t *testing.T, values string, args ...string) rendered {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(file, []byte(values), 0o600))
	out, err := helm(t, append([]string{"template", "shop", chart, "--namespace", "prod", "--values", file}, args...)...)
	require.NoError(t, err)
	return decode(t, out)
}

// pods are those of all workloads.
func (r rendered) podsOf() (specs []corev1.PodSpec) {
	for _, d := range r.deployments {
		specs = append(specs, d.Spec.Template.Spec)
	}
	for _, j := range r.jobs {
		specs = append(specs, j.Spec.Template.Spec)
	}
	for _, p := range r.pods {
		specs = append(specs, p.Spec)
	}
	return specs
}

// sane holds every pod to the Pod Security Standard "restricted", to bounds, and to the program.
func (r rendered) sane(t *testing.T) {
	t.Helper()
	for _, pod := range r.podsOf() {
		require.True(t, *pod.SecurityContext.RunAsNonRoot)
		require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
		require.False(t, *pod.AutomountServiceAccountToken)
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
		}
		for _, c := range pod.Containers {
			require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
			require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
			require.NotZero(t, c.Resources.Requests.Cpu())
			require.False(t, c.Resources.Limits.Memory().IsZero())
			require.Regexp(t, `^[^:]+(:\d+)?[^:]*:[^:]+$`, c.Image, "an image has a tag")
			for _, m := range c.VolumeMounts {
				require.True(t, volumes[m.Name], m.Name)
				require.True(t, m.ReadOnly)
			}
			understood(t, c.Args)
			for _, e := range c.Env {
				require.Empty(t, e.ValueFrom != nil && e.Value != "", e.Name)
			}
		}
	}
	for _, d := range r.deployments {
		require.Equal(t, d.Spec.Selector.MatchLabels, subset(d.Spec.Template.Labels, d.Spec.Selector.MatchLabels))
		for _, s := range r.services {
			require.Equal(t, s.Spec.Selector, subset(d.Spec.Template.Labels, s.Spec.Selector))
		}
		for _, b := range r.budgets {
			require.Equal(t, b.Spec.Selector.MatchLabels, subset(d.Spec.Template.Labels, b.Spec.Selector.MatchLabels))
		}
		for _, j := range r.jobs {
			require.NotEqual(t, d.Spec.Selector.MatchLabels, subset(j.Spec.Template.Labels, d.Spec.Selector.MatchLabels), "the job is not one of the service's pods")
		}
	}
}

func subset(of, keys map[string]string) map[string]string {
	out := map[string]string{}
	for k := range keys {
		if v, ok := of[k]; ok {
			out[k] = v
		}
	}
	return out
}

// understood runs the program's help with the arguments: it refuses what it does not know.
func understood(t *testing.T, args []string) {
	t.Helper()
	require.NotEmpty(t, *program, "run scripts/charts")
	out, err := exec.CommandContext(t.Context(), *program, append(slices.Clone(args), "--help")...).CombinedOutput()
	require.NoError(t, err, "rowhook %s: %s", strings.Join(args, " "), out)
	require.Contains(t, string(out), "rowhook "+args[0])
	known := string(out)
	for _, a := range args[1:] {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(name, "--") {
			require.Contains(t, known, name, "rowhook %s has no flag %s", args[0], name)
		}
	}
}

// valid has the program check a configuration.
func valid(t *testing.T, text string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), *program, "check", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestTheChartOfTheDefaultsIsWhole(t *testing.T) {
	t.Parallel()
	r := render(t, "")
	r.sane(t)
	require.Len(t, r.deployments, 1)
	require.Len(t, r.jobs, 1)
	require.Len(t, r.pods, 1)
	require.Len(t, r.configs, 1)
	require.Len(t, r.services, 1)
	require.Len(t, r.accounts, 1)
	require.Len(t, r.budgets, 1)
	require.Empty(t, r.policies)
	require.Empty(t, r.monitors)
	d, job := r.deployments[0], r.jobs[0]
	require.Equal(t, "shop-rowhook", d.Name)
	require.EqualValues(t, 2, *d.Spec.Replicas)
	require.Equal(t, "rowhook", d.Spec.Template.Spec.Containers[0].EnvFrom[0].SecretRef.Name)
	require.Equal(t, "rowhook-apply", job.Spec.Template.Spec.Containers[0].EnvFrom[0].SecretRef.Name)
	require.Len(t, job.Spec.Template.Spec.Containers[0].EnvFrom, 1, "the job has no secret of the webhooks")
	require.Equal(t, "/healthz", d.Spec.Template.Spec.Containers[0].LivenessProbe.HTTPGet.Path)
	require.Equal(t, "/readyz", d.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet.Path)
	// The job and its configuration are there before the release's objects are.
	for _, annotations := range []map[string]string{job.Annotations, r.configs[0].Annotations} {
		require.Contains(t, annotations["helm.sh/hook"], "pre-install")
		require.Contains(t, annotations["helm.sh/hook"], "pre-upgrade")
	}
	require.Equal(t, r.configs[0].Name, job.Spec.Template.Spec.Volumes[0].ConfigMap.Name)
	valid(t, r.configs[0].Data["rowhook.yaml"])
	require.Equal(t, "test", r.pods[0].Annotations["helm.sh/hook"])
	require.Contains(t, r.pods[0].Spec.Containers[0].Args[1], "http://"+r.services[0].Name+":8787/readyz")
}

const everything = `
replicas: 3
image: {repository: "registry.example.com:5000/team/rowhook", tag: v1.2.3, pullPolicy: Always, pullSecrets: [pull]}
config: |
  triggers:
    - name: order_placed
      table: public.orders
      on: {insert: true}
      webhook: {url: "${ORDERS_URL}/hooks", secret: "${file:/run/secrets/orders/key}"}
existingSecret: dispatcher
secretFiles: [orders, partner-tls]
env: "ORDERS_*,STRIPE_KEY"
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
extraArgs: ["--concurrency=200", "--poll-interval=2s"]
gracePeriodSeconds: 45
apply: {existingSecret: owner, grantTo: rowhook_dispatcher, waitForTables: 60s, extraArgs: ["--allow-publication"]}
service: {type: NodePort, port: 80, annotations: {a: b}}
podDisruptionBudget: {minAvailable: 50%}
podMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}}
networkPolicy: {enabled: true, from: [{namespaceSelector: {}}], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
serviceAccount: {name: hooks, annotations: {x: z}}
podAnnotations: {a: "1"}
podLabels: {team: shop}
nodeSelector: {disk: ssd}
tolerations: [{key: a, operator: Exists}]
affinity: {podAntiAffinity: {}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
priorityClassName: high
`

func TestTheChartHasWhatEachValueSays(t *testing.T) {
	t.Parallel()
	r := render(t, everything)
	r.sane(t)
	pod := r.deployments[0].Spec.Template.Spec
	c := pod.Containers[0]
	require.Equal(t, "registry.example.com:5000/team/rowhook:v1.2.3", c.Image)
	require.Equal(t, c.Image, r.jobs[0].Spec.Template.Spec.Containers[0].Image)
	for _, want := range []string{"--env=ORDERS_*,STRIPE_KEY", "--secrets-dir=/run/secrets", "--grace-period=45s", "--concurrency=200"} {
		require.Contains(t, c.Args, want)
	}
	require.EqualValues(t, 55, *pod.TerminationGracePeriodSeconds)
	require.Equal(t, "/run/secrets/partner-tls", c.VolumeMounts[1].MountPath)
	require.Equal(t, "partner-tls", pod.Volumes[1].Secret.SecretName)
	require.Equal(t, "hooks", pod.ServiceAccountName)
	require.Equal(t, "high", pod.PriorityClassName)
	require.Equal(t, "ssd", pod.NodeSelector["disk"])
	require.Equal(t, "pull", pod.ImagePullSecrets[0].Name)
	require.Len(t, pod.TopologySpreadConstraints, 1)
	require.NotNil(t, pod.Affinity.PodAntiAffinity)
	job := r.jobs[0].Spec.Template.Spec.Containers[0]
	for _, want := range []string{"--grant-to=rowhook_dispatcher", "--wait-for-tables=60s", "--allow-publication"} {
		require.Contains(t, job.Args, want)
	}
	require.Equal(t, "owner", job.EnvFrom[0].SecretRef.Name)
	require.Equal(t, intstr.FromString("50%"), *r.budgets[0].Spec.MinAvailable)
	require.EqualValues(t, 80, r.services[0].Spec.Ports[0].Port)
	require.Len(t, r.policies[0].Spec.Egress, 2)
	key, _, err := unstructured.NestedSlice(r.monitors[0].Object, "spec", "podMetricsEndpoints")
	require.NoError(t, err)
	require.Equal(t, "dispatcher", key[0].(map[string]any)["authorization"].(map[string]any)["credentials"].(map[string]any)["name"])
	valid(t, r.configs[0].Data["rowhook.yaml"])
	require.Contains(t, r.configs[0].Data["rowhook.yaml"], "${ORDERS_URL}/hooks", "references stay as they are")
}

func TestPartsOfTheChartCanBeLeftOut(t *testing.T) {
	t.Parallel()
	r := render(t, "{apply: {enabled: false}, service: {enabled: false}, podDisruptionBudget: {enabled: false}, serviceAccount: {create: false}}")
	r.sane(t)
	require.Len(t, r.deployments, 1)
	require.Equal(t, "default", r.deployments[0].Spec.Template.Spec.ServiceAccountName)
	require.Empty(t, r.jobs)
	require.Empty(t, r.configs)
	require.Empty(t, r.services)
	require.Empty(t, r.budgets)
	require.Empty(t, r.accounts)
	require.Empty(t, render(t, "{replicas: 1}").budgets, "a budget of one would keep a node from being drained")
	r = render(t, "{existingConfigMap: mine}")
	require.Equal(t, "mine", r.jobs[0].Spec.Template.Spec.Volumes[0].ConfigMap.Name)
	require.Empty(t, r.configs)
	r = render(t, "{networkPolicy: {enabled: true}}")
	require.Len(t, r.policies[0].Spec.Egress, 1)
	require.Len(t, r.policies[0].Spec.Ingress[0].From, 1)
}

// A configuration with text that means something to YAML or to Helm arrives as it is.
func TestAConfigurationArrivesAsItIs(t *testing.T) {
	t.Parallel()
	text := "# {{ not a template }}\ntriggers: []   # \"quoted\", 'single', \\ and : - &\n\n\n"
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	require.Equal(t, text, render(t, "", "--set-file", "config="+file).configs[0].Data["rowhook.yaml"])
}

func TestWrongValuesAreRefusedByTheirPlace(t *testing.T) {
	t.Parallel()
	for values, place := range map[string]string{
		"replica=3":                          "replica",
		"replicas=-1":                        "replicas",
		"image.tags=x":                       "tags",
		"existingSecret=Not_A_Name":          "existingSecret",
		"existingSecret=":                    "existingSecret",
		"apply.waitForTables=60":             "waitForTables",
		"service.port=0":                     "port",
		"image.pullPolicy=Sometimes":         "pullPolicy",
		"podMonitor.enabled=perhaps":         "podMonitor",
		"secretFiles={a/b}":                  "secretFiles",
		"networkPolicy.egress={everywhere}":  "egress",
		"podDisruptionBudget.minAvailable=x": "minAvailable",
	} {
		_, err := helm(t, "template", "shop", chart, "--set", values)
		require.Error(t, err, values)
		require.Contains(t, err.Error(), place, values)
	}
}

func TestTheChartIsWellFormed(t *testing.T) {
	t.Parallel()
	out, err := helm(t, "lint", "--strict", chart)
	require.NoError(t, err, out)
	dir := t.TempDir()
	_, err = helm(t, "package", chart, "--version", "1.2.3", "--app-version", "v1.2.3", "--destination", dir)
	require.NoError(t, err)
	out, err = helm(t, "template", "shop", filepath.Join(dir, "rowhook-1.2.3.tgz"))
	require.NoError(t, err)
	require.Equal(t, "rowhook:v1.2.3", decode(t, out).deployments[0].Spec.Template.Spec.Containers[0].Image)
	// Each value has a place in the schema, which refuses all others.
	text, err := os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^(\w+):`).FindAllStringSubmatch(string(text), -1) {
		schema, err := os.ReadFile(chart + "/values.schema.json")
		require.NoError(t, err)
		require.Contains(t, string(schema), `"`+m[1]+`": {`)
	}
}

func TestNotesSayWhatToDoNext(t *testing.T) {
	t.Parallel()
	// Helm shows them to whoever installs, and needs a cluster for that. So they are a value of an object here.
	copied := t.TempDir()
	require.NoError(t, os.CopyFS(copied, os.DirFS(chart)))
	require.NoError(t, os.Rename(copied+"/templates/NOTES.txt", copied+"/notes"))
	require.NoError(t, os.WriteFile(copied+"/templates/notes.yaml", []byte(`notes: {{ tpl (.Files.Get "notes") . | toJson }}`), 0o600))
	out, err := helm(t, "template", "shop", copied, "--namespace", "prod", "--show-only", "templates/notes.yaml")
	require.NoError(t, err)
	_, notes, found := strings.Cut(out, "notes: ")
	require.True(t, found)
	require.Contains(t, notes, "helm test shop -n prod")
	require.Contains(t, notes, "port-forward svc/shop-rowhook 8787:8787")
}

func TestTheKustomizeBaseIsTheSameAsTheManifest(t *testing.T) {
	t.Parallel()
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), base)
	require.NoError(t, err)
	text, err := out.AsYaml()
	require.NoError(t, err)
	r := decode(t, string(text))
	r.sane(t)
	manifest, err := os.ReadFile("../../docs/deploy/kubernetes.yaml")
	require.NoError(t, err)
	m := decode(t, string(manifest))
	m.sane(t)
	require.Equal(t, m.deployments[0].Spec, r.deployments[0].Spec)
	require.Equal(t, m.budgets[0].Spec, r.budgets[0].Spec)
	require.Equal(t, m.configs[0].Data, r.configs[0].Data)
	valid(t, r.configs[0].Data["rowhook.yaml"])
	require.Equal(t, r.configs[0].Name, r.jobs[0].Spec.Template.Spec.Volumes[0].ConfigMap.Name, "named after its content")
	r.jobs[0].Spec.Template.Spec.Volumes, m.jobs[0].Spec.Template.Spec.Volumes = nil, nil
	require.Equal(t, m.jobs[0].Spec, r.jobs[0].Spec)
	require.Len(t, r.services, 1)
}
