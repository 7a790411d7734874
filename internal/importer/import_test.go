package importer_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

func specOf(name string) trigger.Spec {
	s := trigger.DefaultSpec()
	s.Name, s.Table, s.On.Insert, s.Webhook.URL = name, "public.orders", true, "https://shop.example/hook"
	s.Retry.Limit, s.Retry.Backoff, s.Breaker = 0, trigger.BackoffFixed, trigger.BreakerOff
	return s
}

func TestAnImportWritesCommentsWhereSomethingDiffers(t *testing.T) {
	t.Parallel()
	i := importer.New("a test (tables.yaml)")
	i.Say("Attempts are made as before.")
	a := specOf("a")
	use := importer.Use{Trigger: "a", Place: importer.Place{File: "tables.yaml", Line: 7}, Setting: "headers[0].value"}
	a.Webhook.Headers = map[string]string{"Authorization": importer.Join(importer.Mixed, i.HeaderPieces("Authorization", "Bearer s3cr3t", use)...)}
	i.Add(importer.Trigger{Spec: a, Place: importer.Place{File: "tables.yaml", Line: 3}, Comments: []string{"The first of two."}})
	b := specOf("b")
	b.Webhook.URL = "${" + i.Refer("HOOKS", importer.Use{Trigger: "b", Place: importer.Place{File: "tables.yaml", Line: 20}, Setting: "webhook"}) + "}/b"
	i.Add(importer.Trigger{Spec: b, Place: importer.Place{File: "tables.yaml", Line: 18}})
	i.Find(importer.Finding{Kind: importer.Differs, Trigger: "b", Place: importer.Place{File: "tables.yaml", Line: 21}, Setting: "webhook", Message: "is called otherwise", Remedy: "look at it", Key: "webhook.url"})
	i.Find(importer.Finding{Kind: importer.NotCarried, Trigger: "b", Place: importer.Place{File: "tables.yaml", Line: 19}, Setting: "response_transform", Message: "has no counterpart", Remedy: "remove it"})
	got, err := i.Finish()
	require.NoError(t, err)
	require.Equal(t, `# Imported from a test (tables.yaml).
# Attempts are made as before.
#
# Variables to set where the dispatcher runs:
# A_AUTHORIZATION: its value stands at tables.yaml:7 (headers[0].value of a).
# HOOKS
defaults:
  retry:
    limit: 0
    backoff: fixed
  breaker: "off"
triggers:

  # The first of two.
  - name: a
    table: public.orders
    on:
      insert: true
    webhook:
      url: https://shop.example/hook
      headers:
        Authorization: Bearer ${A_AUTHORIZATION}

  # response_transform has no counterpart; remove it.
  - name: b
    table: public.orders
    on:
      insert: true
    webhook:
      # webhook is called otherwise; look at it.
      url: ${HOOKS}/b
`, string(got.File))
	require.NotContains(t, string(got.File), "s3cr3t")
	var report bytes.Buffer
	got.Report.Print(&report)
	require.Equal(t, `Imported 2 triggers from a test (tables.yaml).

Set where the dispatcher runs:
  A_AUTHORIZATION: copy the value from tables.yaml:7 (headers[0].value of a)
  HOOKS: as before, for b

Not carried over:
  b: tables.yaml:19: response_transform: has no counterpart; remove it

Different from before:
  b: tables.yaml:21: webhook: is called otherwise; look at it
`, report.String())
	require.Equal(t, 1, got.Report.Lost())
}

func TestSecretsBecomeVariables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ url, want string }{
		{"https://shop.example/hooks/create-payment-expiry-events?type=erp-submission&page=2", "https://shop.example/hooks/create-payment-expiry-events?type=erp-submission&page=2"},
		{"https://ann:pa:ss@shop.example:8443/x", "https://${T_URL_USER}:${T_URL_PASSWORD}@shop.example:8443/x"},
		{"https://tok@shop.example", "https://${T_URL_USER}@shop.example"},
		{"http://shop.example/x?token=abc&a=b", "http://shop.example/x?token=${T_TOKEN}&a=b"},
		{"http://shop.example/x?a=5f2b7c9d1e3a4b6c8d0e", "http://shop.example/x?a=${T_A}"},
		{"http://shop.example/pushNotificationSubscription/x?=updateLinkHolderRepScore", "http://shop.example/pushNotificationSubscription/x?=updateLinkHolderRepScore"},
		{"http://shop.example/x?a=KmQzWvTbXcLpRsNdGhJfYtBq", "http://shop.example/x?a=${T_A}"},
		{"http://shop.example/x?a=KmqzwvtbxcaPrsndghjfytbq", "http://shop.example/x?a=${T_A}"},
		{"https://hooks.slack.com/services/T00/B00/xyz", "https://hooks.slack.com/${T_URL_PATH}"},
		{"https://shop.example/h/6ba7b810-9dad-11d1-80b4-00c04fd430c8/in", "https://shop.example/h/${T_URL_TOKEN}/in"},
		{"https://shop.example/a$new.id/${X}", "https://shop.example/a$$new.id/$${X}"},
		{"https://shop.example/$5/$$", "https://shop.example/$5/$$"},
	} {
		i := importer.New("a test")
		s := specOf("t")
		s.Webhook.URL = importer.Join(importer.Mixed, i.URL(c.url, importer.Use{Trigger: "t"})...)
		i.Add(importer.Trigger{Spec: s})
		got, err := i.Finish()
		require.NoError(t, err)
		require.Len(t, got.Triggers, 1, "%s: %v", c.url, got.Report.Findings)
		require.Equal(t, c.want, got.Triggers[0].Webhook.URL)
	}
}

func TestHeadersKeepWhatIsNoSecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, want string }{
		{"Content-Type", "application/json", "application/json"},
		{"X-Live", "true", "true"},
		{"X-Version", "v1.2", "v1.2"},
		{"X-Hook", "swordfish", "${T_X_HOOK}"},
		{"authorization", "Basic YTpi", "Basic ${T_AUTHORIZATION}"},
		{"User-Agent", "shop/1.0", "shop/1.0"},
		{"1-odd", "a b", "${T_VALUE_1_ODD}"},
		{"Rowhook", "a b", "${T_ROWHOOK}"},
	} {
		i := importer.New("a test")
		s := specOf("t")
		s.Webhook.Headers = map[string]string{c.name: importer.Join(importer.Mixed, i.HeaderPieces(c.name, c.value, importer.Use{Trigger: "t"})...)}
		i.Add(importer.Trigger{Spec: s})
		got, err := i.Finish()
		require.NoError(t, err)
		require.Equal(t, c.want, got.Triggers[0].Webhook.Headers[c.name])
	}
}

func TestASecretOfSeveralTriggersHasOneVariable(t *testing.T) {
	t.Parallel()
	i := importer.New("a test")
	for _, of := range []struct{ trigger, header, value string }{
		{"a", "X-Key", "one"}, {"b", "X-Key", "one"}, {"a", "X-Token", "two"}, {"b", "X-Token", "three"}, {"pg", "Key", "four"}, {"b", "Sa-me", "five"}, {"b", "Sa_me", "six"},
	} {
		s := specOf(of.trigger)
		if before, ok := i.Taken(of.trigger); ok {
			before.Spec.Webhook.Headers[of.header] = importer.Join(importer.Mixed, i.Header(of.header, of.value, importer.Use{Trigger: of.trigger}))
			continue
		}
		s.Webhook.Headers = map[string]string{of.header: importer.Join(importer.Mixed, i.Header(of.header, of.value, importer.Use{Trigger: of.trigger}))}
		i.Add(importer.Trigger{Spec: s})
	}
	got, err := i.Finish()
	require.NoError(t, err)
	var names []string
	for _, v := range got.Report.Variables {
		names = append(names, v.Name)
		require.True(t, v.Copy)
		require.Empty(t, v.Warning)
	}
	require.Equal(t, []string{"A_X_TOKEN", "B_SA_ME", "B_SA_ME_2", "B_X_TOKEN", "HOOK_PG_KEY", "X_KEY"}, names)
}

func TestVariablesThatADispatcherKeepsAreWarnedOf(t *testing.T) {
	t.Parallel()
	i := importer.New("a test")
	s := specOf("t")
	s.Webhook.URL = "${" + i.Refer("PGHOOK", importer.Use{Trigger: "t"}) + "}/${" + i.Refer("my-var", importer.Use{Trigger: "t"}) + "}/${" + i.Refer("id", importer.Use{Trigger: "t"}) + "}"
	i.Add(importer.Trigger{Spec: s})
	got, err := i.Finish()
	require.NoError(t, err)
	require.Equal(t, "${PGHOOK}/${MY_VAR}/${ID}", got.Triggers[0].Webhook.URL)
	require.Len(t, got.Report.Findings, 2)
	for _, v := range got.Report.Variables {
		require.Equal(t, v.Name == "PGHOOK", v.Warning != "")
	}
}

func TestATriggerThatCannotBeWrittenIsLeftOutAndNamed(t *testing.T) {
	t.Parallel()
	i := importer.New("a test")
	bad := specOf("a trigger")
	bad.Webhook.Headers = map[string]string{"X-Key": importer.Join(importer.Mixed, i.Header("X-Key", "s3cr3t", importer.Use{Trigger: "a trigger"}))}
	i.Add(importer.Trigger{Spec: bad})
	i.Add(importer.Trigger{Spec: specOf("good")})
	got, err := i.Finish()
	require.NoError(t, err)
	require.Len(t, got.Triggers, 1)
	require.Len(t, got.Report.Findings, 1)
	require.Equal(t, importer.Skipped, got.Report.Findings[0].Kind)
	require.Empty(t, got.Report.Variables, "of what is not in the file")
	require.Contains(t, got.Report.Findings[0].Message, "name: ")
	empty, err := importer.New("nothing").Finish()
	require.NoError(t, err)
	require.Equal(t, "# Imported from nothing.\ntriggers: []\n", string(empty.File))
}

func TestWhateverATextHoldsIsThatText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([$]{1,3}|[{]|[}]|new|id|[.]|[a-zA-Z_ ]|\[0\]|\?\?){0,12}`).Draw(t, "text")
		data := rapid.Bool().Draw(t, "data")
		pieces := []importer.Piece{importer.Text(text)}
		if data {
			pieces = append(pieces, importer.Data("new.id"))
		}
		for _, mode := range []template.Mode{importer.Always, importer.Mixed} {
			written := importer.Join(mode, pieces...)
			parts, err := template.Parse(written, mode)
			if err != nil && mode == importer.Mixed && !data {
				continue // a url or a header can't say it, so the trigger is left out
			}
			require.NoError(t, err, written)
			got := ""
			for _, p := range parts {
				require.Empty(t, p.Reference, "%s", written)
				if p.Data == nil {
					got += p.Text
				}
			}
			if parts == nil && mode == importer.Mixed {
				got, err = trigger.ExpandReferences(written, func(string) (string, bool) { return "", false })
				require.NoError(t, err, written)
			}
			require.Equal(t, text, got, "%s", written)
		}
	})
}

func TestWhatIsCommentedIsStillValid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		i := importer.New(rapid.String().Draw(t, "from"))
		i.Say(rapid.String().Draw(t, "said"))
		s := specOf("t")
		i.Add(importer.Trigger{Spec: s, Comments: []string{rapid.String().Draw(t, "comment")}})
		i.Find(importer.Finding{Kind: importer.Differs, Trigger: "t", Message: rapid.String().Draw(t, "message"), Key: rapid.SampledFrom([]string{"", "webhook.url", "on.update", "no.such"}).Draw(t, "key")})
		got, err := i.Finish()
		require.NoError(t, err)
		again, err := config.Parse("f", got.File)
		require.NoError(t, err)
		require.Equal(t, []trigger.Spec{s}, again.Triggers)
	})
}
