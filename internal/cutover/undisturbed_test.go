package cutover

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// stopsBehind interrupts a cut-over behind a step.
func (s *stage) stopsBehind(t *testing.T, step moving.Step, do func(c *Cutover) error) {
	t.Helper()
	c := s.cutover(t)
	c.at = func(point string) error {
		if point == "after "+string(step) {
			return errKilled
		}
		return nil
	}
	require.ErrorIs(t, do(c), errKilled)
}

func forward(t *testing.T) func(c *Cutover) error {
	return func(c *Cutover) error { _, err := c.Forward(t.Context(), "orders"); return err }
}

func back(t *testing.T) func(c *Cutover) error {
	return func(c *Cutover) error { _, err := c.Back(t.Context(), "orders"); return err }
}

// applies applies specs as the command apply does, and returns the changes and warnings.
func (s *stage) applies(t *testing.T, specs ...trigger.Spec) (changes []sqlschema.Change, warnings string) {
	t.Helper()
	plan, err := sqlschema.Applier{}.Apply(t.Context(), s.Conn(t), specs, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
	return plan.Changes(), strings.Join(plan.Warnings, "\n")
}

// says requires that the status has this warning of the cut-over, and none that advises an apply.
func (s *stage) says(t *testing.T, problem, remedy string) {
	t.Helper()
	status, err := operate.ReadStatus(t.Context(), s.Conn(t))
	require.NoError(t, err)
	var of []operate.Warning
	for _, w := range status.Warnings {
		require.NotEqual(t, operate.Uncaptured, w.Code, "%+v", w)
		if w.Code == "cutover" {
			of = append(of, w)
		}
	}
	if problem == "" {
		require.Empty(t, of)
		return
	}
	require.Len(t, of, 1)
	require.Equal(t, "orders", of[0].Trigger)
	require.Contains(t, of[0].Problem, problem)
	require.Contains(t, of[0].Remedy, remedy)
}

// recorded returns how many events the two have recorded so far.
func (s *stage) recorded(t *testing.T) (hasura, rowhook int) {
	t.Helper()
	require.NoError(t, s.Conn(t).QueryRow(t.Context(), "select (select count(*) from hdb_catalog.event_log), (select count(*) from rowhook.event_log) + (select count(*) from rowhook.event_archive)").Scan(&hasura, &rowhook))
	return hasura, rowhook
}

// Behind the switch back Rowhook records nothing, as it should be. Nobody is told to repair that, and an
// apply does not.
func TestNothingRepairsWhatIsMovedBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	require.NoError(t, forward(t)(s.cutover(t)))
	s.says(t, "", "")
	for _, step := range []moving.Step{moving.BackFenced, moving.BackSwitched, moving.BackDrained} {
		s.stopsBehind(t, step, back(t))
		s.says(t, "(step "+string(step)+")", `run "rowhook cutover hasura --back orders"`)

		changes, warnings := s.applies(t, s.spec)
		require.Empty(t, changes)
		if step != moving.BackFenced {
			require.Contains(t, warnings, "orders: it is being moved back to Hasura")
			require.Contains(t, warnings, "so this apply does not touch it")
		}
		changes, warnings = s.applies(t)
		require.Empty(t, changes, "what is being moved would have nobody to record it, or to deliver it")
		require.Contains(t, warnings, "so this apply does not remove it")
	}
	require.NoError(t, back(t)(s.cutover(t)))
	s.says(t, "Hasura delivers it again", "take it out of rowhook.yaml")
	changes, warnings := s.applies(t, s.spec)
	require.Empty(t, changes)
	require.Contains(t, warnings, "rowhook cutover hasura orders -f rowhook.yaml")
	s.Exec(t, "insert into orders values (1, 1)")
	hasura, rowhook := s.recorded(t)
	require.Equal(t, []int{1, 0}, []int{hasura, rowhook})

	// Without the file, Rowhook has nothing that could be moved.
	err := forward(t)(s.cutover(t))
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "rowhook cutover hasura orders -f rowhook.yaml")

	// Once Hasura has the trigger no more, an apply is what is needed.
	require.NoError(t, s.hasura.drop(t.Context(), s.Conn(t), "orders"))
	found, err := sqlschema.FindUncaptured(t.Context(), s.Conn(t))
	require.NoError(t, err)
	require.Len(t, found, 1)
	changes, warnings = s.applies(t, s.spec)
	require.NotEmpty(t, changes)
	require.Empty(t, warnings)
	changes, _ = s.applies(t)
	require.NotEmpty(t, changes)
	s.says(t, "", "")
}

// Captures that were made again all the same, such as by an earlier version, are told of and dropped.
func TestCapturesThatAreMadeAgainOnTheWayBackAreDropped(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	require.NoError(t, forward(t)(s.cutover(t)))
	var made string
	conn := s.Conn(t)
	require.NoError(t, conn.QueryRow(t.Context(), "select string_agg(pg_get_triggerdef(oid), '; ') from pg_trigger where tgrelid = 'orders'::regclass and not tgisinternal").Scan(&made))
	s.stopsBehind(t, moving.BackSwitched, back(t))
	s.Exec(t, made)
	s.says(t, "both record its changes", "rowhook cutover hasura --back orders")
	states, err := s.cutover(t).Back(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, int64(1), states[0].Recaught)
	s.says(t, "Hasura delivers it again", "take it out of rowhook.yaml")
}

// If Hasura has lost its trigger meanwhile, what Rowhook captures again is all that records.
func TestCapturesStayWhenHasuraHasLostItsTrigger(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	dispatchtest.Run(t, dispatcherOf(s))
	require.NoError(t, forward(t)(s.cutover(t)))
	s.stopsBehind(t, moving.BackSwitched, back(t))
	require.NoError(t, s.hasura.drop(t.Context(), s.Conn(t), "orders"))
	changes, _ := s.applies(t, s.spec)
	require.NotEmpty(t, changes)
	err := back(t)(s.cutover(t))
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "create the event trigger orders on public.orders in Hasura again")
	s.Exec(t, "insert into orders values (1, 1)")
	s.settled(t, &ledger{changes: map[string]bool{change("INSERT", 1, 1): true}})
}

// On the way to Rowhook, an apply does not remove what records, and before the switch nothing is done
// that both would deliver or that the switch would discard.
func TestNothingDisturbsWhatIsMovedToRowhook(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stop := s.hasura.work(t)
	s.stopsBehind(t, moving.Prepared, forward(t))
	s.says(t, "(step prepared); both record its changes, and Hasura delivers them", `"rowhook cutover hasura --abort orders", which gives it up`)
	conn := s.Conn(t)
	for what, err := range map[string]error{
		"resume": second(operate.Resume(t.Context(), conn, "orders")), "resume all": second(operate.Resume(t.Context(), conn)),
		"backfill": second(operate.Backfill(t.Context(), conn, "orders", operate.BackfillOptions{})),
		"replay":   second(operate.Replay(t.Context(), conn, "orders", operate.ReplayOptions{From: time.Now().Add(-time.Hour)})),
	} {
		require.ErrorIs(t, err, operate.ErrRefused, what)
		require.ErrorContains(t, err, "rowhook cutover hasura orders", what)
	}
	changes, warnings := s.applies(t)
	require.Empty(t, changes)
	require.Contains(t, warnings, `"rowhook cutover hasura --abort orders"`)

	stop()
	for _, step := range []moving.Step{moving.Switched, moving.Drained, moving.Unregistered, moving.Resumed} {
		s.stopsBehind(t, step, forward(t))
		s.says(t, "(step "+string(step)+"); Rowhook records its changes", "rowhook cutover hasura orders")
		changes, warnings = s.applies(t)
		require.Empty(t, changes)
		require.Contains(t, warnings, "so this apply does not remove it")
		changes, warnings = s.applies(t, s.spec)
		require.Empty(t, changes)
		require.Empty(t, warnings)
	}
	s.Exec(t, "insert into orders values (1, 1)")
	hasura, rowhook := s.recorded(t)
	require.Equal(t, []int{0, 1}, []int{hasura, rowhook})
	loss, err := sqlschema.UninstallSummary(t.Context(), conn)
	require.NoError(t, err)
	require.Contains(t, loss.String(), "the cut-over of orders: it is being moved from Hasura to Rowhook (step resumed)")

	require.NoError(t, forward(t)(s.cutover(t)))
	s.says(t, "", "")
	changes, _ = s.applies(t)
	require.NotEmpty(t, changes)
}

// What somebody had Rowhook send again before the switch is not Hasura's, and is not discarded.
func TestTheSwitchKeepsWhatIsSentAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.hasura.work(t)
	require.NoError(t, forward(t)(s.cutover(t)))
	s.Exec(t, `insert into orders values (1, 1); with gone as (delete from rowhook.event_log returning *)
insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, old, new, reason) select id, created_at, trigger_id, tries, op, old, new, 'gone' from gone`)
	require.NoError(t, back(t)(s.cutover(t)))
	s.apply(t)
	s.stopsBehind(t, moving.Prepared, forward(t))
	conn := s.Conn(t)
	_, err := operate.Redeliver(t.Context(), conn, operate.Filter{Triggers: []string{"orders"}, States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.NoError(t, forward(t)(s.cutover(t)))
	dispatchtest.Run(t, dispatcherOf(s))
	s.settled(t, &ledger{changes: map[string]bool{change("INSERT", 1, 1): true}})
	require.Equal(t, 1, s.receiver.from("/orders"))
}

func second[T any](_ T, err error) error { return err }
