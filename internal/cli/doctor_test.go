package cli_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/doctor"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// examined is the report of rowhook doctor.
type examined struct {
	doctor.Report
	t testing.TB
}

// examine runs rowhook doctor, and sees that its exit code is what it says, and that it shows no password.
func examine(t testing.TB, env []string, args ...string) examined {
	t.Helper()
	code, stdout, stderr := rowhook(t, env, append([]string{"doctor", "--json", "--timeout", "1m"}, args...)...)
	r := examined{t: t}
	require.NoError(t, json.Unmarshal([]byte(stdout), &r.Report), stdout+stderr)
	require.Equal(t, map[bool]int{true: 0, false: 1}[r.OK], code, stdout)
	require.Equal(t, r.OK, r.Count(doctor.Fail) == 0)
	for _, f := range r.Findings {
		require.NotContains(t, f.Detail+f.Remedy, "\n", "a finding is one line")
		require.True(t, f.State == doctor.OK || f.Remedy != "", "%s has no remedy: %s", f.Check, f.Detail)
	}
	for _, entry := range env {
		_, text, _ := strings.Cut(entry, "=")
		if u, err := url.Parse(text); err == nil && u.User != nil {
			password, _ := u.User.Password()
			require.NotContains(t, stdout+stderr, password)
		}
	}
	return r
}

// says requires a finding of a check with this state and these words.
func (r examined) says(check string, state doctor.State, words ...string) {
	r.t.Helper()
	for _, f := range r.Findings {
		all := f.Check == check && f.State == state
		for _, w := range words {
			all = all && strings.Contains(f.Detail+": "+f.Remedy, w)
		}
		if all {
			return
		}
	}
	require.Fail(r.t, "no finding says so", "%s %s %q\n%+v", check, state, words, r.Findings)
}

// contents describes all that doctor could change in a database: the catalog with its versions of rows,
// and the tables and sequences of Rowhook.
func contents(t testing.TB, db *pgtest.DB) string {
	t.Helper()
	conn := db.Conn(t)
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), `
select concat(
  (select string_agg(format('%s %s %s', oid, relname, xmin), ',' order by oid) from pg_class where relpersistence <> 't' and relnamespace not in (select oid from pg_namespace where nspname like 'pg_toast%')),
  (select string_agg(format('%s %s', oid, xmin), ',' order by oid) from pg_proc where oid >= 16384),
  (select string_agg(format('%s %s', oid, xmin), ',' order by oid) from pg_trigger),
  (select string_agg(format('%s %s', oid, xmin), ',' order by oid) from pg_namespace where nspname !~ '^pg_(toast_)?temp'),
  (select string_agg(format('%s %s %s', setdatabase, setrole, setconfig), ',' order by setdatabase, setrole) from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = current_database())))`).Scan(&text))
	var installed bool
	require.NoError(t, conn.QueryRow(t.Context(), "select to_regnamespace('rowhook') is not null").Scan(&installed))
	if installed {
		var rows string
		require.NoError(t, conn.QueryRow(t.Context(), `
select concat((select string_agg(s::text, ',') from rowhook.setting s), (select string_agg(t::text, ',') from rowhook.trigger t), (select string_agg(i::text, ',') from rowhook.instance i),
              (select string_agg(a::text, ',') from rowhook.audit a), (select string_agg(e::text, ',') from rowhook.event_log e), (select concat(last_value, is_called) from rowhook.doorbell))`).Scan(&rows))
		text += rows
	}
	return text
}

func TestDoctorFindsNothingWrongWithAnOrdinaryDatabaseAndChangesNothingInIt(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	owner, ownerURL, asOwner := ownerOfOrders(t, db)
	file := write(t, "rowhook.yaml", `
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true}
    when: new.amount > 5
    webhook: {url: "http://127.0.0.1:1/orders"}
`)
	before := contents(t, db)
	r := examine(t, database(ownerURL), "-f", file)
	require.True(t, r.OK)
	r.says("connection", doctor.OK, "as user \""+owner+"\"")
	r.says("tls", doctor.OK, "does not leave this machine")
	r.says("primary", doctor.OK)
	r.says("clock", doctor.OK)
	r.says("pooler", doctor.OK, "leads to the server itself")
	r.says("listen", doctor.OK, "a notification arrived within")
	r.says("schema", doctor.OK, "not installed yet")
	r.says("rights", doctor.OK, "may apply and dispatch", "REPLICATION is not needed")
	r.says("triggers", doctor.OK, "can be applied (1 trigger")
	r.says("tables", doctor.OK, "nothing is unusual about 1 watched table")
	r.says("captures", doctor.OK, "nothing else has triggers")
	r.says("vacuum", doctor.OK)
	require.Equal(t, before, contents(t, db))

	code, _, stderr := rowhook(t, database(ownerURL), "apply", "-f", file)
	require.Zero(t, code, stderr)
	_, err := asOwner.Exec(t.Context(), "select setval('rowhook.doorbell', 1); insert into orders values (1, 9, 'waits')") // as if the last dispatcher had been killed
	require.NoError(t, err)
	before = contents(t, db)
	for _, args := range [][]string{nil, {"-f", file}, {"--no-listen"}} {
		r = examine(t, database(ownerURL), args...)
		require.True(t, r.OK)
		r.says("schema", doctor.OK, "1 trigger is applied, and no dispatcher runs")
		r.says("schema", doctor.Warn, "no dispatcher listens", "start a dispatcher")
	}
	require.Equal(t, before, contents(t, db), "not even the doorbell, which other commands silence")

	code, stdout, stderr := rowhook(t, append(database(ownerURL), "COLUMNS=100"), "doctor")
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^ok    listen        LISTEN works by DATABASE_URL`, stdout)
	require.Contains(t, stdout, "Rowhook works here, with ")
}

func TestDoctorFindsAPoolerInTheWay(t *testing.T) {
	t.Parallel()
	program := findPgBouncer()
	if program == "" {
		t.Log("left out: PgBouncer is not installed; scripts/test installs it as root on Debian")
		return
	}
	db := pgtest.New(t)
	through := pooled(t, program, db)
	before := contents(t, db)

	r := examine(t, database(through))
	require.False(t, r.OK)
	r.says("pooler", doctor.Fail, "DATABASE_URL leads through a pooler that shares sessions, such as PgBouncer", "set ROWHOOK_LISTEN_URL to a direct connection")

	r = examine(t, append(database(through), "ROWHOOK_LISTEN_URL="+db.URL()))
	require.True(t, r.OK)
	r.says("pooler", doctor.OK, "ROWHOOK_LISTEN_URL says where to listen")
	r.says("listen", doctor.OK, "LISTEN works by --listen-url or ROWHOOK_LISTEN_URL")

	r = examine(t, append(database(through), "ROWHOOK_LISTEN_URL="+through))
	require.False(t, r.OK)
	r.says("listen", doctor.Fail, "ROWHOOK_LISTEN_URL leads through a pooler", "direct connection")

	r = examine(t, append(database(db.URL()), "ROWHOOK_LISTEN_URL="+through))
	require.False(t, r.OK)
	r.says("listen", doctor.Fail, "ROWHOOK_LISTEN_URL leads through a pooler")

	r = examine(t, append(database(through), "ROWHOOK_NO_LISTEN=true"))
	require.True(t, r.OK)
	r.says("pooler", doctor.OK, "find events by polling")

	db.Exec(t, "do $$ begin execute format('alter database %I set statement_timeout = ''90s''', current_database()); end $$")
	r = examine(t, append(database(pooled(t, program, db)), "ROWHOOK_LISTEN_URL="+db.URL()))
	require.True(t, r.OK)
	r.says("settings", doctor.Warn, "through a pooler these hold for Rowhook's statements, too", "statement_timeout = 90000 ms", "set statement_timeout = 0")
	db.Exec(t, "do $$ begin execute format('alter database %I reset statement_timeout', current_database()); end $$")

	r = examine(t, database(pooledBy(t, program, "session", db)))
	require.True(t, r.OK)
	r.says("pooler", doctor.OK, "a session of its own")
	r.says("listen", doctor.OK, "LISTEN works by DATABASE_URL")

	statements := pooledBy(t, program, "statement", db)
	r = examine(t, database(statements))
	require.False(t, r.OK)
	r.says("pooler", doctor.Fail, "DATABASE_URL leads through a pooler in statement mode", "set pool_mode = transaction or session")
	code, _, stderr := rowhook(t, database(statements), "run", "--http", "127.0.0.1:0")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "set pool_mode = transaction or session in the pooler")
	require.Equal(t, before, contents(t, db))
}

func TestACertificateThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"sslrootcert", "sslcert"} {
		code, _, stderr := rowhook(t, database("postgres://a@db.example/shop?sslmode=verify-full&sslkey=/no/file&"+setting+"=/no/file"), "doctor")
		require.Equal(t, 2, code)
		require.Contains(t, stderr, "/no/file")
		require.Contains(t, stderr, "correct sslrootcert, sslcert, sslkey or sslmode")
	}
}

func TestDoctorNamesTheRightThatIsMissing(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	owner, ownerURL, _ := ownerOfOrders(t, db)
	stranger, strangerURL := db.Role(t)
	_, receiverURL := receiver(t)
	file := ordersConfig(t, receiverURL)

	r := examine(t, database(strangerURL), "-f", file)
	require.False(t, r.OK)
	r.says("rights", doctor.Fail, "the role "+stranger+" may not create the schema rowhook", "grant create on database")
	r.says("triggers", doctor.Fail, "rowhook.yaml:4:", "may not create triggers on public.orders", "apply as its owner "+owner)

	code, _, stderr := rowhook(t, database(ownerURL), "apply", "-f", file)
	require.Zero(t, code, stderr)
	r = examine(t, database(strangerURL))
	require.False(t, r.OK)
	r.says("rights", doctor.Fail, "the role "+stranger+" lacks rights that a dispatcher needs", `run "rowhook apply --grant-to `+stranger+`"`)

	code, _, stderr = rowhook(t, database(ownerURL), "apply", "-f", file, "--grant-to", stranger)
	require.Zero(t, code, stderr)
	r = examine(t, database(strangerURL))
	require.True(t, r.OK)
	r.says("rights", doctor.OK, "may dispatch, and not apply")
	r.says("tables", doctor.OK, "1 watched table")

	db.Exec(t, "alter role "+stranger+" connection limit 12")
	r = examine(t, database(strangerURL))
	require.True(t, r.OK)
	r.says("connections", doctor.Warn, "the role's connection limit of 12")
}

func TestDoctorNoticesThatNotificationsGetLost(t *testing.T) {
	t.Parallel()
	db, other := pgtest.NewEmpty(t), pgtest.NewEmpty(t)
	r := examine(t, append(database(db.URL()), "ROWHOOK_LISTEN_URL="+other.URL()), "--timeout", "10s")
	require.False(t, r.OK)
	r.says("listen", doctor.Fail, "notifications do not pass from one to the other", "set both to the same database")

	r = examine(t, append(database(db.URL()), "ROWHOOK_LISTEN_URL=postgres://u:secret-word@"+closedPort(t)+"/shop?sslmode=disable"))
	require.False(t, r.OK)
	r.says("listen", doctor.Fail, "can't connect", "correct host and port in --listen-url or ROWHOOK_LISTEN_URL")
}

// TestDoctorEndsInTimeWhateverAnswers asks a server that takes connections and never says a word.
func TestDoctorEndsInTimeWhateverAnswers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	r := examine(t, database("postgres://u:secret-word@"+l.Addr().String()+"/shop?sslmode=disable"), "--timeout", "200ms")
	require.False(t, r.OK)
	r.says("connection", doctor.Fail, "did not answer in time", "correct host and port in DATABASE_URL")

	r = examine(t, database("postgres://u:secret-word@"+closedPort(t)+"/shop?sslmode=disable"))
	require.False(t, r.OK)
	r.says("connection", doctor.Fail, "connection refused")
	require.Len(t, r.Findings, 1)

	db := pgtest.New(t)
	conn := db.Conn(t)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(t.Context()) //nolint:errcheck // it holds a lock
	_, err = tx.Exec(t.Context(), "lock table rowhook.trigger in access exclusive mode")
	require.NoError(t, err)
	r = examine(t, database(db.URL()), "--timeout", "10s")
	r.says("schema", doctor.Warn, "not found out within 10s", "--timeout")
	require.Equal(t, "disk", r.Findings[len(r.Findings)-1].Check, "the other checks are run all the same")
}

func TestDoctorTellsAStandbyFromAPrimary(t *testing.T) {
	t.Parallel()
	r := replicate(t)
	on := examine(t, database(r.standby.URL("postgres")))
	require.False(t, on.OK)
	on.says("primary", doctor.Fail, "in recovery (a standby)", "connect to the primary")
	on = examine(t, database(r.url(t)))
	require.True(t, on.OK)
	on.says("primary", doctor.OK)
	on.says("listen", doctor.OK)
}

func TestDoctorFindsSettingsThatKeepRowhookFromWorking(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, orders)
	role, roleURL := db.Role(t)
	db.Exec(t, "alter role "+role+" set default_transaction_read_only = on")
	r := examine(t, database(roleURL))
	require.False(t, r.OK)
	r.says("primary", doctor.Fail, "default_transaction_read_only is on", "turn it off")

	db.Exec(t, "alter role "+role+" set session_replication_role = replica; alter role "+role+" set log_statement = 'all'; alter role "+role+" reset default_transaction_read_only")
	r = examine(t, database(db.URL()))
	r.says("settings", doctor.Warn, "changes by these roles are not captured", role)
	r = examine(t, database(roleURL))
	r.says("settings", doctor.Warn, "the server logs the statements of this role", "log_statement = all")

	db.Exec(t, "do $$ begin execute format('alter database %I set session_replication_role = replica', current_database()); end $$")
	r = examine(t, database(db.URL()))
	require.False(t, r.OK)
	r.says("settings", doctor.Fail, "no change is captured", "reset session_replication_role")
}

func TestDoctorNamesOthersThatCaptureTheSameTables(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders+`;
create schema hdb_catalog; create schema supabase_functions; create schema net;
create function net.http_post(url text) returns bigint language sql as 'select 1::bigint';
create function hdb_catalog."notify_hasura_order_INSERT"() returns trigger language plpgsql as 'begin return null; end';
create function supabase_functions.http_request() returns trigger language plpgsql as 'begin return null; end';
create function by_hand() returns trigger language plpgsql as 'begin perform net.http_post(url := ''https://e.com''); return null; end';
create function rings() returns trigger language plpgsql as 'begin perform pg_notify(''x'', ''y''); return null; end';
create function touch() returns trigger language plpgsql as 'begin return new; end';
create trigger "notify_hasura_order_INSERT" after insert on orders for each row execute function hdb_catalog."notify_hasura_order_INSERT"();
create trigger "To Slack" after insert on orders for each row execute function supabase_functions.http_request('https://e.com/?key=t0psecret', 'POST', '{"Authorization":"Bearer t0psecret"}', '{}', '1000');
create trigger by_hand after insert on orders for each row execute function by_hand();
create trigger rings after insert on orders for each row execute function rings();
create trigger touch before update on orders for each row execute function touch();
create unlogged table scratch (id int primary key); create table parts (id int, at date) partition by range (at);
create publication sequin_pub for table orders;`)
	file := write(t, "rowhook.yaml", `
triggers:
  - {name: order_changed, table: orders, on: {insert: true}, webhook: {url: "http://127.0.0.1:1/a"}}
  - {name: scratched, table: scratch, on: {insert: true}, webhook: {url: "http://127.0.0.1:1/b"}}
  - {name: parted, table: parts, on: {insert: true}, webhook: {url: "http://127.0.0.1:1/c"}}
`)
	r := examine(t, database(db.URL()), "-f", file)
	require.True(t, r.OK)
	r.says("extensions", doctor.OK, "Hasura's schema hdb_catalog is here")
	r.says("captures", doctor.Warn, "Hasura's event triggers capture these tables, too", `"notify_hasura_order_INSERT" on public.orders`)
	r.says("captures", doctor.Warn, "Supabase's database webhooks", `"To Slack" on public.orders`)
	r.says("captures", doctor.Warn, "sends HTTP requests by itself", "by_hand on public.orders")
	r.says("captures", doctor.Warn, "notifies at each write", "rings on public.orders")
	r.says("captures", doctor.OK, "other triggers on these tables", "touch on public.orders")
	r.says("captures", doctor.OK, "sequin_pub")
	r.says("tables", doctor.Warn, "public.scratch is unlogged")
	r.says("tables", doctor.OK, "public.parts is partitioned")
	for _, f := range r.Findings {
		require.NotContains(t, f.Detail+f.Remedy, "t0psecret", "arguments of triggers have secrets")
	}

	db.Exec(t, "create publication everything for all tables")
	r = examine(t, database(db.URL()))
	require.False(t, r.OK)
	r.says("publications", doctor.Fail, "the publication everything would publish Rowhook's tables", "publish named tables")
}

func TestDoctorComparesTheVersionOfTheSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, receiverURL := receiver(t)
	file := ordersConfig(t, receiverURL)
	code, _, stderr := rowhook(t, database(db.URL()), "apply", "-f", file)
	require.Zero(t, code, stderr)
	db.Exec(t, "alter table orders disable trigger user")
	r := examine(t, database(db.URL()))
	require.False(t, r.OK)
	r.says("schema", doctor.Fail, "order_changed", "rowhook apply")
	db.Exec(t, "alter table orders enable trigger user")

	code, _, stderr = rowhook(t, database(db.URL()), "migrate", "--to", "1", "--yes")
	require.Zero(t, code, stderr)
	r = examine(t, database(db.URL()))
	require.False(t, r.OK)
	r.says("schema", doctor.Fail, "the schema rowhook is at version 1", `run "rowhook migrate"`)
}

func TestDoctorNamesAReplicationSlotThatNobodyReads(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	slot := "rowhook_doctor_" + strings.ToLower(rand.Text())
	conn := db.Conn(t)
	_, err := conn.Exec(t.Context(), "select pg_create_physical_replication_slot($1)", slot)
	require.NoError(t, err)
	defer func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "select pg_drop_replication_slot($1)", slot)
		require.NoError(t, err)
	}()
	r := examine(t, database(db.URL()))
	r.says("slots", doctor.Warn, slot, "pg_drop_replication_slot(")
}

func TestDoctorRefusesWrongUsage(t *testing.T) {
	t.Parallel()
	code, _, stderr := rowhook(t, database("mysql://u:secret-word@db/shop"), "doctor")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "DATABASE_URL")
	require.NotContains(t, stderr, "secret-word")
	code, _, stderr = rowhook(t, database("postgres://127.0.0.1:1/shop"), "doctor", "-f", write(t, "rowhook.yaml", "triggers: [{name: x}]\n"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "rowhook.yaml:1:")
	code, _, _ = rowhook(t, nil, "doctor", "--nonsense")
	require.Equal(t, 2, code)
}
