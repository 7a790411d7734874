package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
)

// checkSettings looks at the settings that matter, as this role's sessions have them.
func (e *examination) checkSettings(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		s, err := readSettings(ctx, tx)
		if err != nil {
			return err
		}
		before := len(e.report.Findings)
		e.judgeTimeouts(s)
		e.judgeSessions(s)
		e.judgeUpkeep(s)
		e.judgeLogs(s)
		if err := e.judgeReplicas(ctx, tx, s); err != nil {
			return err
		}
		if err := e.judgeCollation(ctx, tx); err != nil {
			return err
		}
		if len(e.report.Findings) == before {
			e.ok("no setting stands in the way (encoding %s, isolation %s); sessions of Rowhook fix their own time-outs, time zone and search path", s["server_encoding"], s["default_transaction_isolation"])
		}
		return nil
	})
}

// readSettings reads pg_settings. What the session has set for its transaction is not in
// reset_val, which has the value of the role, the database or the server.
func readSettings(ctx context.Context, tx pgx.Tx) (map[string]string, error) {
	found, err := pg.Collect[struct{ Name, Value string }](ctx, tx, `
select name, coalesce(reset_val, setting, '') as value from pg_settings where name = any($1)`, []string{
		"statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout",
		"session_replication_role", "server_encoding", "default_transaction_isolation", "autovacuum", "track_counts", "fsync", "full_page_writes",
		"log_statement", "log_min_duration_statement", "pgaudit.log",
	})
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	s := map[string]string{}
	for _, f := range found {
		s[f.Name] = f.Value
	}
	return s, nil
}

// judgeTimeouts warns of time-outs where Rowhook can't set its own: behind a pooler that shares
// sessions.
func (e *examination) judgeTimeouts(s map[string]string) {
	if !e.pooled {
		return
	}
	var set []string
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"} {
		if v := s[name]; v != "" && v != "0" {
			set = append(set, name+" = "+v+" ms")
		}
	}
	if len(set) > 0 {
		role := pg.PlainName(e.main.Config().User)
		e.warn("turn them off for the dispatchers' role: alter role "+role+" set "+strings.Fields(set[0])[0]+" = 0, and the others likewise",
			"through a pooler these hold for Rowhook's statements, too: %s", strings.Join(set, ", "))
	}
}

// judgeSessions looks at what sessions begin with.
func (e *examination) judgeSessions(s map[string]string) {
	switch encoding := s["server_encoding"]; encoding {
	case "UTF8":
	case "SQL_ASCII":
		e.warn("let new databases have the encoding UTF8", "the encoding of the database is SQL_ASCII, which checks no text: a row whose text is not UTF-8 can't be sent, and its event becomes a dead letter")
	default:
		e.ok("the encoding of the database is %s: bodies are UTF-8 all the same", encoding)
	}
}

// judgeUpkeep looks at what the server does on its own.
func (e *examination) judgeUpkeep(s map[string]string) {
	if s["autovacuum"] == "off" || s["track_counts"] == "off" {
		e.warn("turn autovacuum and track_counts on", "autovacuum does not run, so the queue keeps the room of delivered events, and claims get slower")
	}
	if s["fsync"] == "off" || s["full_page_writes"] == "off" {
		e.warn("turn fsync and full_page_writes on, unless the data may be lost", "fsync or full_page_writes is off: a crash of the machine can damage the database, and events with it")
	}
}

// judgeLogs warns of logs that would have every statement of a dispatcher.
func (e *examination) judgeLogs(s map[string]string) {
	var all []string
	if v := s["log_statement"]; v == "all" || v == "mod" {
		all = append(all, "log_statement = "+v)
	}
	if s["log_min_duration_statement"] == "0" {
		all = append(all, "log_min_duration_statement = 0")
	}
	if v := s["pgaudit.log"]; v != "" && v != "none" {
		all = append(all, "pgaudit.log = "+v)
	}
	if len(all) > 0 {
		e.warn(`turn them off for the role that dispatches: see "Statement logs and pgaudit" in docs/operations.md`,
			"the server logs the statements of this role, and a dispatcher runs a few each second (%s)", strings.Join(all, ", "))
	}
}

// judgeReplicas looks for sessions in which capture triggers do not fire.
func (e *examination) judgeReplicas(ctx context.Context, tx pgx.Tx, s map[string]string) error {
	whole, err := sqlschema.BeginAsReplicas(ctx, tx)
	if err != nil {
		return err
	}
	if whole {
		e.fail("alter database ... reset session_replication_role", "sessions of this database begin with session_replication_role = replica, in which triggers do not fire: no change is captured")
		return nil
	}
	var roles []string
	err = tx.QueryRow(ctx, `
select array(select r.rolname::text from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
              where 'session_replication_role=replica' = any(s.setconfig)
                and s.setdatabase in (0, (select oid from pg_database where datname = current_database())) order by 1)`).Scan(&roles)
	if err != nil {
		return fmt.Errorf("look for session_replication_role: %w", err)
	}
	if len(roles) > 0 {
		e.warn("if the application writes as one of them: alter role ... reset session_replication_role; or give its triggers on_replication: true",
			"changes by these roles are not captured, since their sessions begin with session_replication_role = replica: %s", someOf(roles))
	} else if s["session_replication_role"] == "replica" {
		e.fail("reset session_replication_role in the server's configuration", "sessions begin with session_replication_role = replica, in which triggers do not fire: no change is captured")
	}
	return nil
}

// judgeCollation warns of indexes that may be out of order, through which claims and backfills could
// miss rows.
func (e *examination) judgeCollation(ctx context.Context, tx pgx.Tx) error {
	if e.server < 150000 {
		return nil
	}
	var have, want string
	err := tx.QueryRow(ctx, "select coalesce(datcollversion, ''), coalesce(pg_database_collation_actual_version(oid), '') from pg_database where datname = current_database()").Scan(&have, &want)
	if err != nil {
		return fmt.Errorf("compare the versions of the collation: %w", err)
	}
	if have != "" && want != "" && have != want {
		e.warn("reindex the indexes on texts, then: alter database ... refresh collation version",
			"the operating system's collation has changed since the database was made (%s, now %s): indexes on texts may be out of order, and a backfill in their order could pass rows over", have, want)
	}
	return nil
}

// instanceConnections is how many connections a dispatcher has at most: eleven, and six while its
// HTTP interface is used.
const instanceConnections = 17

// holdsLong is how long a transaction may hold back vacuum before it is a finding.
const holdsLong = time.Minute

// checkConnections counts the connections that are left.
func (e *examination) checkConnections(ctx context.Context) error {
	if e.other {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		var most, reserved, used, roleLimit, roleUsed, databaseLimit, databaseUsed int64
		err := tx.QueryRow(ctx, `
select current_setting('max_connections')::bigint, current_setting('superuser_reserved_connections')::bigint + coalesce(current_setting('reserved_connections', true), '0')::bigint,
       count(*), (select rolconnlimit from pg_roles where rolname = current_user), count(*) filter (where usename = current_user),
       (select datconnlimit from pg_database where datname = current_database()), count(*) filter (where datname = current_database())
  from pg_stat_activity where backend_type = 'client backend'`).Scan(&most, &reserved, &used, &roleLimit, &roleUsed, &databaseLimit, &databaseUsed)
		if err != nil {
			return fmt.Errorf("count the connections: %w", err)
		}
		free, of := most-reserved-used, fmt.Sprintf("max_connections = %d", most)
		if left := roleLimit - roleUsed; roleLimit >= 0 && left < free {
			free, of = left, fmt.Sprintf("the role's connection limit of %d", roleLimit)
		}
		if left := databaseLimit - databaseUsed; databaseLimit >= 0 && left < free {
			free, of = left, fmt.Sprintf("the database's connection limit of %d", databaseLimit)
		}
		free = max(0, free)
		if free < instanceConnections {
			e.warn("raise the limit, close idle clients, or lead the application through a pooler",
				"%s free of %s, and a dispatcher has up to eleven, and six more while its HTTP interface is used", have(free, "connection"), of)
			return nil
		}
		e.ok("%s free of %s", have(free, "connection"), of)
		return nil
	})
}

// checkExtensions names what else is in the database that matters.
func (e *examination) checkExtensions(ctx context.Context) error {
	if e.other {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		found, err := pg.Collect[struct{ Name, Version string }](ctx, tx, `
select extname::text as name, extversion as version from pg_extension
union all select nspname::text, '' from pg_namespace where nspname in ('hdb_catalog', 'supabase_functions', 'sequin')`)
		if err != nil {
			return fmt.Errorf("list the extensions: %w", err)
		}
		at := func(name string) int {
			return slices.IndexFunc(found, func(f struct{ Name, Version string }) bool { return f.Name == name })
		}
		before := len(e.report.Findings)
		if i := at("citus"); i >= 0 {
			e.warn("watch tables that are not distributed, and connect to the coordinator", "Citus %s is installed: triggers on distributed tables would run on the workers, where there is no queue", found[i].Version)
		}
		for _, name := range []string{"bdr", "pglogical", "spock"} {
			if i := at(name); i >= 0 {
				e.warn("run a dispatcher on each node that the application writes to; on_replication: true captures what is replicated, too, and then twice in all", "%s %s is installed: changes that it replicates from elsewhere fire no captures", name, found[i].Version)
			}
		}
		if i := at("timescaledb"); i >= 0 {
			e.ok("TimescaleDB %s is installed: hypertables are captured row by row", found[i].Version)
		}
		if at("hdb_catalog") >= 0 {
			e.ok("Hasura's schema hdb_catalog is here: both work beside each other, and a table that both watch is sent twice")
		}
		if at("supabase_functions") >= 0 {
			e.ok("Supabase's schema supabase_functions is here: its database webhooks work beside Rowhook's triggers")
		}
		if i := at("pgmq"); i >= 0 {
			e.ok("pgmq %s is here, and neither knows of the other", found[i].Version)
		}
		if err := e.eventTriggers(ctx, tx); err != nil {
			return err
		}
		if len(e.report.Findings) == before {
			e.ok("no extension stands in the way (%s installed)", term.Plural(int64(len(found)), "extension"))
		}
		return nil
	})
}

// eventTriggers names those that could forbid the DDL by which history gets its daily partitions.
func (e *examination) eventTriggers(ctx context.Context, tx pgx.Tx) error {
	var names []string
	err := tx.QueryRow(ctx, `
select array(select evtname::text from pg_event_trigger t
              where evtenabled <> 'D' and evtevent in ('ddl_command_start', 'ddl_command_end', 'sql_drop')
                and not exists (select from pg_depend d where d.classid = 'pg_event_trigger'::regclass and d.objid = t.oid and d.deptype = 'e') order by 1)`).Scan(&names)
	if err != nil {
		return fmt.Errorf("list the event triggers: %w", err)
	}
	if len(names) > 0 {
		e.ok("event triggers run at DDL, also at that of the schema rowhook, which gets partitions each day: %s must let it pass", someOf(names))
	}
	return nil
}

// checkPublications looks for those that would publish Rowhook's own tables.
func (e *examination) checkPublications(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		names, err := sqlschema.Publications(ctx, tx)
		switch {
		case err != nil:
			return err
		case len(names) == 0:
			e.ok("no publication publishes Rowhook's own tables")
		case !e.installed:
			e.failOf(&sqlschema.PublishedError{Publications: names})
		default:
			e.warn("publish named tables or schemas", "Rowhook's tables are published, too, with a new partition each day, and a subscriber that does not have them stops replicating (%s)", someOf(names))
		}
		return nil
	})
}

// slot is a replication slot. Rowhook has none.
type slot struct {
	Name, Plugin, Status string
	Active               bool
	Behind               *int64 // bytes of WAL that it keeps
}

// checkSlots names slots that keep WAL and whose consumers are gone.
func (e *examination) checkSlots(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		slots, err := pg.Collect[slot](ctx, tx, `
select slot_name::text as name, coalesce(plugin::text, '') as plugin, coalesce(wal_status, '') as status, active,
       case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint end as behind
  from pg_replication_slots where not temporary order by 1`)
		if err != nil {
			return fmt.Errorf("list the replication slots: %w", err)
		}
		idle := 0
		for _, s := range slots {
			if s.Active {
				continue
			}
			idle++
			keeps := ""
			if s.Behind != nil {
				keeps = " It keeps " + term.Bytes(*s.Behind) + " of WAL"
			}
			e.warn(fmt.Sprintf("start its consumer, or drop it: select pg_drop_replication_slot(%s)", pg.StringLiteral(s.Name)),
				"nothing reads from the replication slot %s, so it fills the server's disk.%s", strings.TrimSpace(s.Name+" "+bracket(s.Plugin)), keeps)
		}
		switch {
		case len(slots) == 0:
			e.ok("there are no replication slots, and Rowhook needs none")
		case idle < len(slots):
			e.ok("%s read from; Rowhook needs none", have(int64(len(slots)-idle), "replication slot"))
		}
		return nil
	})
}

func bracket(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

// checkVacuum names what holds back vacuum, which makes claims slow.
func (e *examination) checkVacuum(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		const transactions = 100_000
		h, err := queue.FindHolder(ctx, tx, holdsLong, transactions)
		switch {
		case err != nil:
			return err
		case h != nil:
			since := ""
			if h.Since != nil {
				since = ", since " + h.Since.UTC().Format("2006-01-02 15:04:05 MST")
			}
			e.warn(h.Remedy(), "%s holds back vacuum%s: the queue keeps the room of delivered events, and claims get slower", h, since)
		default:
			e.ok("no transaction holds back vacuum for longer than %s", holdsLong)
		}
		return nil
	})
}

// checkDisk says what SQL can see of it: sizes, and not what is free.
func (e *examination) checkDisk(ctx context.Context) error {
	if e.other {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		var whole, ours int64
		var wal *int64
		err := tx.QueryRow(ctx, `
select pg_database_size(current_database()),
       coalesce((select sum(pg_total_relation_size(c.oid)) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'rowhook' and c.relkind = 'r'), 0)::bigint`).Scan(&whole, &ours)
		if err != nil {
			return fmt.Errorf("read the size of the database: %w", err)
		}
		var may bool
		if err := tx.QueryRow(ctx, "select has_function_privilege('pg_ls_waldir()', 'execute')").Scan(&may); err != nil {
			return fmt.Errorf("ask for the right to read the size of the WAL: %w", err)
		}
		if may {
			if err := tx.QueryRow(ctx, "select sum(size)::bigint from pg_ls_waldir()").Scan(&wal); err != nil {
				return fmt.Errorf("read the size of the WAL: %w", err)
			}
		}
		log := ""
		if wal != nil {
			log = ", and the server's WAL " + term.Bytes(*wal)
		}
		e.ok("the database has %s, of which the schema rowhook has %s%s; what is free on the disk can't be asked by SQL", term.Bytes(whole), term.Bytes(ours), log)
		return nil
	})
}
