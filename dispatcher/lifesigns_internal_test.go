package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
)

func TestWhoHasLostItsLockIsDeadSoonerThanWhoIsOnlySilent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		other queue.Instance
		dead  time.Duration
	}{
		"crashed":                     {queue.Instance{ID: 2, Listens: true, Seen: 1}, 3 * time.Second},
		"silent":                      {queue.Instance{ID: 2, Listens: true, Locked: true, Seen: 1}, queue.UnseenAfter},
		"polls, silent":               {queue.Instance{ID: 2, Seen: 1}, queue.UnseenAfter},
		"died before its first beat":  {queue.Instance{ID: 2}, queue.UnseenAfter},
		"and its session was left":    {queue.Instance{ID: 2, Listens: true, Locked: true}, queue.UnseenAfter},
		"and its row said it listens": {queue.Instance{ID: 2, Listens: true}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o lifeSigns
			began := time.Now()
			for at := time.Duration(0); at < time.Minute; at += time.Second {
				now := began.Add(at)
				dead := o.judge([]queue.Instance{{ID: 1}, c.other}, 1, now, now)
				require.Equal(t, at >= c.dead, len(dead) == 1, at)
			}
		})
	}
}
