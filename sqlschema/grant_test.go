package sqlschema_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// granted is what a dispatcher's role is granted, as "kind name privilege columns". It is a second
// list, so that neither list changes by accident.
func granted() []string {
	return []string{
		"function drop_partitions EXECUTE",
		"function ensure_partitions EXECUTE",
		"function pause_by_answer EXECUTE",
		"function remove_partition EXECUTE",
		"function trim_history EXECUTE",
		"schema rowhook USAGE",
		"sequence departures USAGE",
		"sequence doorbell SELECT",
		"sequence doorbell UPDATE",
		"sequence event_seq SELECT",
		"sequence handover SELECT",
		"sequence handover UPDATE",
		"sequence instance_id USAGE",
		"table activity DELETE",
		"table activity INSERT",
		"table activity SELECT",
		"table activity UPDATE delivered", "table activity UPDATE died", "table activity UPDATE error", "table activity UPDATE error_at",
		"table activity UPDATE failed", "table activity UPDATE latency", "table activity UPDATE outcomes",
		"table alert DELETE", "table alert INSERT", "table alert SELECT", "table alert UPDATE",
		"table alerter INSERT", "table alerter SELECT", "table alerter UPDATE",
		"table backfill SELECT", "table commit_row DELETE", "table commit_row SELECT",
		"table dead_letter INSERT",
		"table dead_letter SELECT blocks", "table dead_letter SELECT died_at", "table dead_letter SELECT id", "table dead_letter SELECT key",
		"table dead_letter SELECT lane", "table dead_letter SELECT reason", "table dead_letter SELECT seq", "table dead_letter SELECT tries",
		"table dead_letter SELECT trigger_id",
		"table dead_letter UPDATE blocks", "table dead_letter UPDATE died_at", "table dead_letter UPDATE key", "table dead_letter UPDATE lane",
		"table dead_letter UPDATE reason", "table dead_letter UPDATE seq", "table dead_letter UPDATE tries",
		"table event_archive INSERT",
		"table event_log DELETE",
		"table event_log SELECT",
		"table event_log UPDATE claim", "table event_log UPDATE claimed_by", "table event_log UPDATE due_at", "table event_log UPDATE key", "table event_log UPDATE lane", "table event_log UPDATE tries",
		"table health DELETE", "table health INSERT", "table health SELECT", "table health UPDATE",
		"table instance DELETE",
		"table instance INSERT",
		"table instance SELECT",
		"table instance UPDATE listens", "table instance UPDATE name", "table instance UPDATE seen_at", "table instance UPDATE serves", "table instance UPDATE trouble",
		"table invocation_log INSERT",
		"table key_move DELETE", "table key_move SELECT", "table key_move UPDATE ready",
		"table lane SELECT", "table lane UPDATE deaths", "table lane UPDATE died_at", "table lane UPDATE epoch", "table lane UPDATE owner",
		"table rate INSERT", "table rate SELECT", "table rate UPDATE next_at",
		"table relation SELECT",
		"table replay SELECT",
		"table schema_version SELECT",
		"table setting SELECT",
		"table share DELETE", "table share INSERT", "table share SELECT",
		"table share UPDATE busy", "table share UPDATE n", "table share UPDATE registered",
		"table trigger SELECT", "table trigger_table SELECT",
	}
}

// rightsSQL selects all rights of a role in the database.
const rightsSQL = `
select r from (select concat_ws(' ', kind, name, privilege, col) as r, grantee from (
  select 'schema' as kind, nspname as name, a.privilege_type as privilege, null as col, a.grantee from pg_namespace, aclexplode(nspacl) a
  union all
  select case relkind when 'S' then 'sequence' else 'table' end, relname, a.privilege_type, null, a.grantee from pg_class, aclexplode(relacl) a
  union all
  select 'table', c.relname, a.privilege_type, attname, a.grantee from pg_attribute join pg_class c on c.oid = attrelid, aclexplode(attacl) a where not attisdropped
  union all
  select 'function', proname, a.privilege_type, null, a.grantee from pg_proc, aclexplode(proacl) a
  union all
  select 'database', datname, a.privilege_type, null, a.grantee from pg_database, aclexplode(datacl) a
) _) _ where grantee = $1::regrole order by r collate "C"`

func rights(t *testing.T, conn *pgx.Conn, role string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), rightsSQL, role)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return list
}

func TestGrantGivesExactlyTheListedRightsAndOnlyOnce(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)", all("w", "t"))
	role, _ := w.Role(t)
	before, err := sqlschema.PlanGrants(t.Context(), w.conn, []string{role})
	require.NoError(t, err)
	require.Empty(t, rights(t, w.conn, role), "planning grants nothing")

	changes, err := sqlschema.Grant(t.Context(), w.conn, []string{role, role})
	require.NoError(t, err)
	require.Equal(t, before[0], changes[0])
	require.Contains(t, changes[0].String(), "+ rights of a dispatcher for "+role+": usage on schema rowhook; ")
	require.Contains(t, changes[0].String(), "update (due_at, claimed_by, tries) on rowhook.event_log")
	require.Equal(t, granted(), rights(t, w.conn, role))

	changes, err = sqlschema.Grant(t.Context(), w.conn, []string{role})
	require.NoError(t, err)
	require.Empty(t, changes)
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
	require.Empty(t, rights(t, w.conn, role))
}

func TestGrantNamesRolesThatDoNotExist(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "")
	role, _ := w.Role(t)
	_, err := sqlschema.PlanGrants(t.Context(), w.conn, []string{role + "s", role, "No body"})
	require.EqualError(t, err, fmt.Sprintf("there is no role \"%ss\" on this server; did you mean %[1]s?: create it first, or correct --grant-to\n"+
		"there is no role \"No body\" on this server: create it first, or correct --grant-to", role))
	require.Empty(t, rights(t, w.conn, role))
}

func TestGrantIsPlannedBeforeTheFirstMigration(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	role, _ := db.Role(t)
	changes, err := sqlschema.PlanGrants(t.Context(), db.Conn(t), []string{role})
	require.NoError(t, err)
	require.Len(t, changes, 1)
}

// TestADispatcherNeedsEachOfItsRightsAndNoOther runs every statement of a dispatcher as a role with
// the granted rights. Then it revokes each right in turn, and the statements must fail.
func TestADispatcherNeedsEachOfItsRightsAndNoOther(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table gone (a int)", all("w", "t"), all("gone", "gone"))
	role, url := w.Role(t)
	_, err := sqlschema.Grant(t.Context(), w.conn, []string{role})
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })

	w.prepareWork(t)
	require.NoError(t, dispatch(t.Context(), conn))
	for _, table := range []string{"t", "rowhook.event_archive", "rowhook.invocation_log"} {
		_, err := conn.Exec(t.Context(), "select from "+table)
		require.ErrorContains(t, err, "permission denied", table)
	}
	for _, sql := range []string{
		"insert into t values (1)", "update rowhook.trigger set spec = '{}'", "update rowhook.setting set value = '0'", "insert into rowhook.event_log (id, trigger_id, op) values (gen_random_uuid(), 1, 'I')",
		"update rowhook.event_log set new = '1'", "drop trigger rowhook_w_insert on t", "select rowhook.emit('w', '1')", "create table rowhook.mine (a int)", "drop table rowhook.dead_letter",
	} {
		_, err := conn.Exec(t.Context(), sql)
		var refused interface{ SQLState() string }
		require.ErrorAs(t, err, &refused, sql)
		require.Equal(t, pgerrcode.InsufficientPrivilege, refused.SQLState(), sql)
	}

	for _, right := range rights(t, w.conn, role) {
		var kind, name, privilege, column string
		_, _ = fmt.Sscan(right, &kind, &name, &privilege, &column) // column may be missing
		on := map[string]string{"schema": "schema " + name, "table": "rowhook." + name, "sequence": "sequence rowhook." + name, "function": "function rowhook." + name}[kind]
		if column != "" {
			privilege += " (" + column + ")"
		}
		w.prepareWork(t)
		w.do(t, fmt.Sprintf("revoke %s on %s from %s", privilege, on, role))
		var missing *sqlschema.MissingRightsError
		require.ErrorAs(t, sqlschema.CheckRights(t.Context(), conn), &missing, right)
		require.Contains(t, strings.Join(missing.Missing, "; "), name)
		require.ErrorContains(t, missing, "the role "+role+" lacks")
		require.ErrorContains(t, missing, `run "rowhook apply --grant-to `+role+`"`)
		err := dispatch(t.Context(), conn)
		if (name == "event_seq" || name == "departures") && err == nil {
			// Later servers answer null instead: then everything may have been missed and is read again.
			// Departures are counted by the schema, and dispatchers of version 7 count them themselves.
			w.do(t, fmt.Sprintf("grant %s on %s to %s", privilege, on, role))
			continue
		}
		var refused interface{ SQLState() string }
		require.ErrorAs(t, err, &refused, "works without %s", right)
		require.Equal(t, pgerrcode.InsufficientPrivilege, refused.SQLState(), err)
		w.do(t, fmt.Sprintf("grant %s on %s to %s", privilege, on, role))
		require.NoError(t, sqlschema.CheckRights(t.Context(), conn))
	}
	w.prepareWork(t)
	require.NoError(t, dispatch(t.Context(), conn))
}

// prepareWork leaves work for every statement of dispatch.
func (w watched) prepareWork(t *testing.T) {
	t.Helper()
	today := time.Now().UTC().Format("20060102")
	w.do(t, "truncate rowhook.event_log, rowhook.dead_letter, rowhook.instance", "update rowhook.trigger set removed_at = null",
		"insert into t select generate_series(1, 5)", "insert into gone values (1)", "update rowhook.trigger set removed_at = now() where name = 'gone'",
		"insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason) select id, created_at, trigger_id, 1, op, 'x' from rowhook.event_log",
		"select rowhook.ensure_partitions(now() - interval '20 days', now() - interval '20 days')",
		"drop table if exists rowhook.event_archive_"+today)
}

// dispatch runs the statements of a dispatcher in a transaction and rolls back.
func dispatch(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, _, err := sqlschema.Version(ctx, conn); err != nil {
		return err
	}
	id, err := queue.NewInstance(ctx, tx)
	if err != nil {
		return err
	}
	cfg, err := queue.Load(ctx, tx)
	if err != nil {
		return err
	}
	var events []queue.Claimed
	var watch queue.Watch
	steps := []func() error{
		func() error { return queue.Register(ctx, tx, id, "n", "v", false) },
		func() error { return queue.Register(ctx, tx, id, "n", "v", true) },
		func() error { return queue.MeasureCommit(ctx, tx, id) },
		func() error {
			return queue.RecordTrouble(ctx, tx, id, &queue.Trouble{Unable: map[string]string{"w": "no variable"}})
		},
		func() error { return queue.HoldLock(ctx, conn, id) },
		func() error { _, err := queue.EndHolders(ctx, tx, id); return err },
		func() error { _, err := queue.Beat(ctx, tx, id, true); return err },
		func() (err error) { watch, err = queue.ReadWatch(ctx, tx); return },
		func() error { _, err := queue.DropExpired(ctx, tx, cfg.Settings.Retention); return err },
		func() error { return queue.EnsureDay(ctx, tx, time.Now()) },
		func() error { _, err := queue.Ring(ctx, tx, queue.Handover{Instance: id}); return err },
		func() error { return queue.SetHandover(ctx, tx, queue.Handover{Instance: id, Refused: 3}) },
		func() error {
			watch, err := queue.ReadWatch(ctx, tx)
			if err == nil && watch.Handover != (queue.Handover{Instance: id, Refused: 3}) { // likewise
				err = &pgconn.PgError{Code: pgerrcode.InsufficientPrivilege, Message: "the hand-over can't be read"}
			}
			return err
		},
		func() error { return queue.EndHandover(ctx, tx, id) },
		func() error { _, err := queue.Take(ctx, tx, id, [][16]byte{{1}}, false); return err },
		func() error { _, err := queue.TakeOthers(ctx, tx, id, [][16]byte{{1}}, false, 1); return err },
		func() error { _, err := queue.LookForHanded(ctx, tx, id, nil); return err },
		func() error { _, _, err := queue.ReturnStrays(ctx, tx); return err },
		func() error { _, err := queue.Pending(ctx, tx, 1); return err },
		func() error { return queue.Silence(ctx, tx, id) },
		func() error {
			watch, err := queue.ReadWatch(ctx, tx)
			if err == nil && watch.Doorbell != id { // without the right PostgreSQL 18 returns null
				err = &pgconn.PgError{Code: pgerrcode.InsufficientPrivilege, Message: "the doorbell can't be read"}
			}
			return err
		},
		func() error { return queue.NotifyPeers(ctx, tx, "help") },
		func() error { return queue.EndSession(ctx, tx, conn.PgConn().PID(), "nobody") },
		func() (err error) {
			events, err = queue.Claim(ctx, tx, queue.Claimant{Instance: id, Number: 1}, []queue.Want{{Trigger: cfg.Triggers[0].ID, Relation: cfg.Triggers[0].Relation, Limit: 5, Lease: time.Hour}})
			return
		},
		func() error {
			_, err := queue.NextDue(ctx, tx, []int32{cfg.Triggers[0].ID}, []time.Duration{0})
			return err
		},
		func() error {
			_, ok, err := queue.FetchPayload(ctx, tx, id, queue.Holding{ID: events[0].ID, Tries: events[0].Tries, Claim: events[0].Claim})
			if err == nil && !ok {
				err = fmt.Errorf("the event is not this instance's")
			}
			return err
		},
		func() error {
			fates := []queue.Fate{queue.Delivered, queue.Retried, queue.Dead, queue.Released}
			batch := make([]queue.Settlement, len(fates))
			for i, fate := range fates {
				batch[i] = queue.Settlement{ID: events[i].ID, Trigger: events[i].Trigger, Tries: events[i].Tries, Claim: events[i].Claim, Fate: fate, Attempt: &queue.Attempt{StartedAt: time.Now()}}
			}
			n, err := queue.Settle(ctx, tx, queue.SettleOptions{Instance: id, KeepDelivered: true, KeepAttempts: true}, batch)
			if err == nil && n != len(fates) {
				err = fmt.Errorf("%d of %d settled", n, len(fates))
			}
			return err
		},
		func() error { _, err := queue.DropOldest(ctx, tx); return err },
		func() error {
			days, _, err := queue.HistoryDays(ctx, tx, id)
			if err == nil && len(days) == 0 {
				err = fmt.Errorf("no days of history")
			}
			if err == nil {
				_, err = queue.TrimHistory(ctx, tx, days[0].Name, 0, 1, time.Hour, nil)
			}
			return err
		},
		func() error {
			_, err := queue.PauseByAnswer(ctx, tx, &queue.Trigger{ID: cfg.Triggers[0].ID}, 410)
			return err
		},
		func() error {
			_, _, _, err := queue.Expire(ctx, tx, queue.Expiry{Trigger: cfg.Triggers[0].ID, Age: time.Nanosecond, Reason: "expired", Limit: 5})
			return err
		},
		func() error { _, err := queue.ForgetCommitRows(ctx, tx); return err },
		func() error {
			return queue.RecordActivity(ctx, tx, id, make([]queue.Activity, 1))
		},
		func() error { return queue.ForgetActivity(ctx, tx) },
		func() error { _, err := queue.ReadQueueHealth(ctx, tx); return err },
		func() error { _, err := queue.FindHolder(ctx, tx, 0, 0); return err },
		func() error { _, err := operate.ReadStatus(ctx, tx); return err }, // for the metrics
		func() error {
			_, err := queue.ReleaseUnknown(ctx, tx, queue.Claimant{Instance: id, Number: 2}, []queue.Want{{Trigger: cfg.Triggers[0].ID, Relation: cfg.Triggers[0].Relation, Limit: 1, Lease: time.Minute}})
			return err
		},
		func() error { _, err := queue.BuryOrphans(ctx, tx); return err },
		func() error { return tellTrouble(ctx, tx, id, cfg.Triggers[0].ID) },
		func() error { return shareHealth(ctx, tx, id, cfg.Triggers[0].ID) },
		func() error {
			_, err := queue.ReserveSlots(ctx, tx, []queue.SlotWant{{Trigger: cfg.Triggers[0].ID, Every: time.Second, Burst: 1, N: 1}})
			return err
		},
		func() error {
			_, err := queue.TakeShare(ctx, tx, cfg.Triggers[0].ID, id, func(queue.Shares) queue.Share { return queue.Share{N: 1} })
			return err
		},
		func() error { return queue.LeaveShares(ctx, tx, id, []int32{}) },
		func() error { _, err := queue.Unpark(ctx, tx); return err },
		func() error { _, err := queue.ReadSeats(ctx, tx, id, []int32{1}, nil); return err },
		func() error {
			_, err := queue.ClaimLanes(ctx, tx, id, []queue.LaneWant{{Trigger: 1, Most: 1, Anew: []int16{1}}})
			return err
		},
		func() error {
			_, err := queue.ReadLanes(ctx, tx, []queue.LaneRead{{Trigger: 1, Relation: cfg.Triggers[0].Relation, Limit: 1}})
			return err
		},
		func() error { _, err := queue.ReadBlocked(ctx, tx, []queue.Lane{{Trigger: 1}}); return err },
		func() error {
			_, err := queue.Settle(ctx, tx, queue.SettleOptions{Instance: id, KeepDelivered: true, KeepAttempts: true},
				[]queue.Settlement{{ID: events[0].ID, Trigger: 1, Tries: 1, Fate: queue.Dead, Lane: queue.Lane{Trigger: 1, Epoch: 1}}, {ID: events[0].ID, Claim: 1, Fate: queue.Delivered}})
			return err
		},
		func() error {
			return queue.MarkMovesReady(ctx, tx, id, []queue.LaneMove{{Event: events[0].ID, Owned: queue.Lane{Trigger: 1, Epoch: 1}}})
		},
		func() error { _, err := queue.ReadMoves(ctx, tx, [][16]byte{events[0].ID}); return err },
		func() error { _, err := queue.FinishMoves(ctx, tx, [][16]byte{events[0].ID}); return err },
		func() error { _, err := queue.ReleaseLanes(ctx, tx, id, []queue.Lane{{Trigger: 1}}); return err },
		func() error { _, err := queue.Reclaim(ctx, tx, append(slices.Clone(watch.Dead), -1)); return err },
		func() error { return queue.Unregister(ctx, tx, id) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// shareHealth runs the statements by which dispatchers share what they know of endpoints.
func shareHealth(ctx context.Context, tx pgx.Tx, instance, trigger int32) error {
	target := queue.TargetOf(trigger)
	for _, step := range []func() error{
		func() error {
			_, err := queue.BeginFailing(ctx, tx, instance, &queue.Failure{Target: target, Trigger: trigger, Triggers: []int32{trigger}, Reason: "refused"})
			return err
		},
		func() error { _, err := queue.ReadHealth(ctx, tx); return err },
		func() error {
			_, _, err := queue.StartProbe(ctx, tx, instance, &queue.Probe{Target: target, Triggers: []int32{trigger}, Lease: time.Minute})
			return err
		},
		func() error { return queue.ProbeFailed(ctx, tx, instance, target, "refused", time.Second) },
		func() error { return queue.ProbeAnswered(ctx, tx, instance, target) },
		func() error { _, err := queue.Recover(ctx, tx, target, 0); return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// tellTrouble runs the statements by which a dispatcher looks after alerts.
func tellTrouble(ctx context.Context, tx pgx.Tx, instance, trigger int32) error {
	now := time.Now()
	state := alert.State{Destination: "d", Key: alert.Key{Kind: alert.Dead, Subject: "w"}, BegunAt: now, Pending: alert.Begun, Attempts: 1}
	m := alert.Message{Destination: "d", Kind: alert.Dead, Phase: alert.Begun, At: now, States: []alert.State{state}}
	for _, step := range []func() error{
		func() error { _, err := queue.TakeAlertTurn(ctx, tx, instance, time.Minute); return err },
		func() error { _, err := queue.TakeAlertTurn(ctx, tx, instance, time.Minute); return err },
		func() error { _, err := queue.ReadFailing(ctx, tx); return err },
		func() error { _, err := queue.ReadDeaths(ctx, tx, []int32{trigger}, []time.Time{now}); return err },
		func() error { _, err := queue.ReadOverdue(ctx, tx, []int32{trigger}, time.Minute); return err },
		func() error { return queue.WriteAlerts(ctx, tx, map[string]string{"d": "e"}, m.States, nil) },
		func() error { return queue.FinishAlert(ctx, tx, m.Sent(), &m) },
		func() error { _, err := queue.ReadAlerts(ctx, tx); return err },
		func() error { return queue.WriteAlerts(ctx, tx, nil, nil, m.States) },
		func() error { return queue.RecordHeartbeat(ctx, tx, "h", "e", "answered 503") },
		func() error { return queue.RecordHeartbeat(ctx, tx, "h", "e", "") },
		func() error { return queue.ForgetHeartbeats(ctx, tx, nil) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
