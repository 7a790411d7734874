package dispatcher_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
)

// hostile are values of a text column, as SQL for a session in the database's own encoding, that a
// payload may hold.
func hostile(encoding string) []string {
	values := []string{
		"'plain'", "repeat('x', 1000000)", "repeat('y', 70000)", "(select string_agg(md5(i::text), '') from generate_series(1, 10000) i)",
		`E'\\u0000'`, `'"}]\\'`, "repeat('[', 20000)", "repeat(E'\\x01\\x1f\\x7f', 100)", "''",
	}
	switch encoding {
	case "EUC_JP":
		values = append(values, `convert_from('\xa9a1', 'EUC_JP')`, `repeat(convert_from('\xa9a1', 'EUC_JP'), 100000)`, `convert_from('\xc6fc', 'EUC_JP')`)
	case "SQL_ASCII":
		values = append(values, `convert_from('\x80ff', 'SQL_ASCII')`, `convert_from('\xe9', 'SQL_ASCII')`, `repeat(convert_from('\xff', 'SQL_ASCII'), 100000)`)
	case "LATIN1":
		values = append(values, `convert_from('\xe9ff', 'LATIN1')`, `repeat(convert_from('\xe9', 'LATIN1'), 100000)`)
	case "UTF8":
		values = append(values, `convert_from('\xe697a5', 'UTF8')`, `repeat(convert_from('\xf09f9880', 'UTF8'), 100000)`)
	}
	return values
}

// imposed are settings that a role or a database may impose on every session.
func imposed() []string {
	return []string{
		"client_encoding = 'SQL_ASCII'", "DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'", "search_path = 'nowhere'", "statement_timeout = 20", "lock_timeout = 20",
		"default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on", "row_security = off", "bytea_output = 'escape'", "extra_float_digits = -15",
		"TimeZone = 'Asia/Kolkata'", "synchronous_commit = off", "work_mem = 64", "enable_indexscan = off", "jit = on", "plan_cache_mode = force_custom_plan",
		"quote_all_identifiers = on", "array_nulls = off", "xmloption = document", "standard_conforming_strings = on", "lc_messages = 'C'", "default_statistics_target = 1",
	}
}

// rights are what the role of the dispatcher has, and what is taken from it while it works. Without the
// rights that a claim needs nothing can be delivered, so these are left out.
func rights() []string {
	return []string{
		"owner", // of everything
		"granted",
		"insert on rowhook.event_archive, rowhook.invocation_log",
		"insert, update on rowhook.activity",
		"select on rowhook.relation, rowhook.audit",
	}
}

// hugeNumbers are values of a column numeric.
func hugeNumbers() []string { return []string{"null", "1e1000", "'NaN'", "-0.1", "1e-500"} }

func TestWhateverOneTriggersEventsHoldFourOthersDeliver(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ROWHOOK_PROPERTY_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("ROWHOOK_PROPERTY_SEED=%d draws the same", seed)
	draw := rand.New(rand.NewPCG(seed, 1))
	ends := time.Now().Add(15 * time.Second)
	for n := 0; n < 8 && time.Now().Before(ends); n++ {
		encoding := []string{"UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"}[(n+int(seed%4))%4]
		var settings, values []string
		for range draw.IntN(5) {
			settings = append(settings, imposed()[draw.IntN(len(imposed()))])
		}
		all := hostile(encoding)
		for range 1 + draw.IntN(6) {
			values = append(values, fmt.Sprintf("(%s, %s)", all[draw.IntN(len(all))], hugeNumbers()[draw.IntN(len(hugeNumbers()))]))
		}
		t.Run(fmt.Sprintf("%d %s", n, encoding), func(t *testing.T) {
			fourOfFiveDeliver(t, encoding, settings, values, rights()[draw.IntN(len(rights()))], draw.IntN(2) == 0)
		})
	}
}

func fourOfFiveDeliver(t *testing.T, encoding string, settings, values []string, right string, late bool) {
	t.Logf("settings %q, values %q, right %q, late %t", settings, values, right, late)
	b := newFixtureOn(t, pgtest.NewIn(t, encoding))
	conn, own := b.Conn(t), b.Conn(t) // as it is before the settings
	defer func() { _ = own.Close(context.Background()) }()
	for n := range 5 {
		b.watch(t, fmt.Sprint("t", n))
	}
	for _, s := range settings {
		_, err := conn.Exec(t.Context(), "do $do$ begin execute format('alter database %I set ', current_database()) || $s$"+s+"$s$; end $do$")
		require.NoError(t, err)
	}
	insert := func(conn *pgx.Conn, table, values string) {
		_, err := conn.Exec(t.Context(), "insert into public."+table+" (v, n) values "+values)
		require.NoError(t, err)
	}
	poison := func() {
		for _, v := range values {
			insert(conn, "t0", v)
		}
	}
	if !late {
		poison()
	}
	role, url := b.Role(t)
	_, err := sqlschema.Grant(t.Context(), own, []string{role})
	require.NoError(t, err)
	r := b.start(t, func(c *dispatcher.Config) {
		c.MaxBody, c.Name = 600_000, "größe"
		if right != "owner" {
			c.DatabaseURL = url
		}
	})
	if right != "owner" && right != "granted" {
		_, err := own.Exec(t.Context(), "revoke "+right+" from "+role)
		require.NoError(t, err)
	}
	if late {
		poison()
	}
	for n := 1; n < 5; n++ {
		insert(own, fmt.Sprint("t", n), "('fine', 1)")
		b.receiver.await(t, fmt.Sprint("t", n), 1)
	}
	eventually(t, conn, 0, "select count(*)::integer from rowhook.event_log where tries = 0 or claimed_by is not null")
	if strings.Contains(right, "event_archive") { // what is delivered is settled without history
		dead := one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where trigger_id = 1 and reason <> ''")
		require.Equal(t, len(values), b.receiver.unique("t0")+dead, r.log.String())
		r.says(t, "history can't be written")
		r.Stop(t)
		return
	}
	require.Equal(t, len(values), one[int](t, conn, `
select ((select count(*) from rowhook.event_archive where trigger_id = 1 and delivered_at is not null)
      + (select count(*) from rowhook.dead_letter where trigger_id = 1 and reason <> '')
      + (select count(*) from rowhook.event_log q where trigger_id = 1 and exists (select from rowhook.invocation_log l where l.event_id = q.id and l.error <> '')))::integer`))
	require.Equal(t, b.receiver.unique("t0"), one[int](t, conn, "select count(*)::integer from rowhook.event_archive where trigger_id = 1"), r.log.String())
	require.NotContains(t, r.log.String(), "a database statement failed")
	r.Stop(t)
}
