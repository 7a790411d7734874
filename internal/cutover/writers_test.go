package cutover

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// ledger are the changes that were committed.
type ledger struct {
	mu      sync.Mutex
	changes map[string]bool
}

func (l *ledger) add(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.changes[k] = true
	}
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.changes)
}

const (
	writersAtOnce = 4
	pace          = 20 * time.Millisecond // 200 transactions a second in all
)

// write has writers change the table public.orders, and another one, until stop is called: by inserts,
// updates and deletes, of which some change nothing, in transactions that write elsewhere first, that
// roll savepoints back, or that keep one snapshot.
func write(t testing.TB, db *pgtest.DB) (l *ledger, stop func()) {
	l = &ledger{changes: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	errs := make(chan error, writersAtOnce)
	for n := range writersAtOnce {
		conn, err := pgx.Connect(ctx, db.URL())
		require.NoError(t, err)
		go func() {
			defer conn.Close(context.Background())
			w := writer{conn: conn, ledger: l, random: rand.New(rand.NewPCG(uint64(n), 1)), next: n * 1_000_000, revs: map[int]int{}}
			errs <- w.run(ctx)
		}()
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			for range writersAtOnce {
				require.NoError(t, <-errs)
			}
		})
	}
	t.Cleanup(stop)
	return l, stop
}

// writer changes rows that no other writer changes.
type writer struct {
	conn   *pgx.Conn
	ledger *ledger
	random *rand.Rand
	next   int
	revs   map[int]int // of its rows
	ids    []int
}

func (w *writer) run(ctx context.Context) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := w.transaction(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

var errRolledBack = errors.New("rolled back on purpose")

func (w *writer) transaction(ctx context.Context) error {
	options := pgx.TxOptions{}
	if w.random.IntN(4) == 0 {
		options.IsoLevel = pgx.RepeatableRead
	}
	var keys []string
	before, ids, next := map[int]int{}, append([]int(nil), w.ids...), w.next
	for id, rev := range w.revs {
		before[id] = rev
	}
	err := pgx.BeginTxFunc(ctx, w.conn, options, func(tx pgx.Tx) error {
		if w.random.IntN(3) == 0 { // it has a transaction id, and a snapshot, before it comes to the table
			if _, err := tx.Exec(ctx, "insert into public.elsewhere default values"); err != nil {
				return err
			}
			if err := operate.Rest(ctx, time.Duration(w.random.IntN(5))*time.Millisecond); err != nil {
				return err
			}
		}
		for range 1 + w.random.IntN(3) {
			if w.random.IntN(3) > 0 {
				more, err := w.change(ctx, tx)
				if err != nil {
					return err
				}
				keys = append(keys, more...)
				continue
			}
			var more []string
			revs, ids := map[int]int{}, append([]int(nil), w.ids...)
			for id, rev := range w.revs {
				revs[id] = rev
			}
			err := pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) (err error) {
				if more, err = w.change(ctx, sub); err == nil && w.random.IntN(3) == 0 {
					err = errRolledBack
				}
				return err
			})
			if errors.Is(err, errRolledBack) {
				w.revs, w.ids = revs, ids
				continue
			}
			if err != nil {
				return err
			}
			keys = append(keys, more...)
		}
		if w.random.IntN(10) == 0 {
			return errRolledBack
		}
		return nil
	})
	switch {
	case errors.Is(err, errRolledBack):
		w.revs, w.ids, w.next = before, ids, next+10
		return nil
	case err != nil:
		return err
	}
	w.ledger.add(keys)
	return nil
}

// change makes a change, and returns its key. A row that was rolled back has its id again at most
// with another revision, since those rise.
func (w *writer) change(ctx context.Context, tx pgx.Tx) ([]string, error) {
	w.next++
	rev := w.next
	if len(w.ids) < 3 || w.random.IntN(2) == 0 {
		id := w.next
		_, err := tx.Exec(ctx, "insert into public.orders (id, rev, v) values ($1, $2, 'new')", id, rev)
		w.ids = append(w.ids, id)
		w.revs[id] = rev
		return []string{change("INSERT", id, rev)}, err
	}
	at := w.random.IntN(len(w.ids))
	id := w.ids[at]
	switch w.random.IntN(4) {
	case 0:
		_, err := tx.Exec(ctx, "delete from public.orders where id = $1", id)
		key := change("DELETE", id, w.revs[id])
		w.ids = append(w.ids[:at:at], w.ids[at+1:]...)
		delete(w.revs, id)
		return []string{key}, err
	case 1:
		_, err := tx.Exec(ctx, "update public.orders set rev = rev where id = $1", id)
		return nil, err
	}
	_, err := tx.Exec(ctx, "update public.orders set rev = $2 where id = $1", id, rev)
	w.revs[id] = rev
	return []string{change("UPDATE", id, rev)}, err
}
