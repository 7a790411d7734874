package dispatcher

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestWithoutHooksAnAttemptAllocatesNothingForThem(t *testing.T) {
	d, err := New(Config{})
	require.NoError(t, err)
	d.sendCtx = context.Background()
	dl := &delivery{lane: &lane{}}
	ep, err := webhook.NewEndpoint(sqlschema.Webhook{URL: "http://127.0.0.1"}, nil)
	require.NoError(t, err)
	var r webhook.Result
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ctx, ended := d.attempting(dl)
		if ctx != d.sendCtx {
			t.Error("another context")
		}
		d.attempted(dl, ep, &r, sqlschema.Delivered, 0, ended)
	}))
}

func BenchmarkAttemptWithoutHooks(b *testing.B) {
	d, err := New(Config{})
	require.NoError(b, err)
	d.sendCtx = context.Background()
	dl := &delivery{lane: &lane{}}
	ep, err := webhook.NewEndpoint(sqlschema.Webhook{URL: "http://127.0.0.1"}, nil)
	require.NoError(b, err)
	var r webhook.Result
	b.ReportAllocs()
	for b.Loop() {
		_, ended := d.attempting(dl)
		d.attempted(dl, ep, &r, sqlschema.Delivered, 0, ended)
	}
}
