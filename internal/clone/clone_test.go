package clone_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func query[T any](t *testing.T, url, sql string, args ...any) (value T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&value))
	return value
}

func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

// template returns a template of this test alone, and a count of how often it was made.
func template(t *testing.T, sql string) (clone.Template, *atomic.Int32) {
	made := new(atomic.Int32)
	return clone.Template{
		Key: t.Name() + strconv.FormatInt(time.Now().UnixNano(), 10), Base: "template0",
		Make: func(ctx context.Context, url string) error {
			made.Add(1)
			return execute(ctx, url, sql)
		},
	}, made
}

// admin returns the URL of the tests' server, for a superuser.
func admin(t *testing.T) string {
	t.Helper()
	return os.Getenv(pgtest.EnvURL)
}

// creator returns the URL of the tests' server for a role that may create databases and nothing else.
func creator(t *testing.T) string {
	t.Helper()
	db := pgtest.NewEmpty(t)
	name, url := db.Role(t)
	db.Exec(t, "alter role "+name+" createdb")
	return url
}

// as returns a URL of the same server for another role, whose password is x.
func as(t *testing.T, server, role string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "x")
	return u.String()
}

func dropLater(t *testing.T, server string, t1 clone.Template) {
	t.Cleanup(func() {
		require.NoError(t, t1.Forget(context.Background(), server))
	})
}

func databases(t *testing.T, server, like string) []string {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), server)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), "select datname::text from pg_database where datname like $1", like)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

func TestATemplateIsMadeOnceAndItsClonesAreApart(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]func(*testing.T) string{"superuser": admin, "role that may create databases": creator} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := server(t)
			tp, made := template(t, "create table kept as select 42 as n")
			dropLater(t, server, tp)
			var wg sync.WaitGroup
			clones, errs := make([]*clone.Database, 8), make([]error, 8)
			for i := range clones {
				wg.Go(func() { clones[i], errs[i] = clone.New(t.Context(), server, tp) })
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			require.EqualValues(t, 1, made.Load())
			require.NoError(t, execute(t.Context(), clones[0].URL, "drop table kept"))
			require.Equal(t, 42, query[int](t, clones[1].URL, "select n from kept"))
			for _, d := range clones {
				require.NoError(t, d.Drop(t.Context(), time.Minute))
			}
			for _, d := range clones {
				require.Empty(t, databases(t, server, d.Name))
			}
		})
	}
}

// What is in a clone belongs to the role that made the template, so each role has a template.
func TestEachRoleHasATemplateOfItsOwn(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t) // of its own: members and owners are roles of all databases
	super := server.URL("postgres")
	require.NoError(t, execute(t.Context(), super, `create role owner login createdb password 'x';
		create role member login createdb password 'x' in role owner; create role other login createdb password 'x'`))
	as := func(role string) string { return as(t, super, role) }
	acting := as("other") + "&options=-c%20role%3Downer"
	for _, order := range [][]string{
		{super, as("owner"), as("member"), as("other")}, {as("other"), as("member"), as("owner"), super},
		{as("member"), super}, {as("owner"), as("other")},
	} {
		tp, made := template(t, "create table kept as select 42 as n")
		for range 2 {
			for _, role := range order {
				d, err := clone.New(t.Context(), role, tp)
				require.NoError(t, err)
				require.NoError(t, execute(t.Context(), d.URL, "drop table kept"), "it is the role's own")
				require.NoError(t, d.Drop(t.Context(), time.Minute))
			}
		}
		require.EqualValues(t, len(order), made.Load())
		for _, role := range order {
			require.NoError(t, tp.Forget(t.Context(), role))
		}
		require.Empty(t, databases(t, super, "rowhook_template_%"))
	}

	require.NoError(t, execute(t.Context(), super, "grant owner to other"))
	tp, made := template(t, "")
	for _, role := range []string{as("owner"), acting} {
		d, err := clone.New(t.Context(), role, tp)
		require.NoError(t, err)
		require.NoError(t, d.Drop(t.Context(), time.Minute))
	}
	require.EqualValues(t, 1, made.Load(), "a session that acts as a role uses that role's")
	for _, change := range []string{"alter role owner superuser", "alter role owner nosuperuser"} {
		require.NoError(t, execute(t.Context(), super, change))
		d, err := clone.New(t.Context(), as("owner"), tp)
		require.NoError(t, err)
		require.NoError(t, d.Drop(t.Context(), time.Minute))
	}
	require.EqualValues(t, 2, made.Load(), "one more, for the superuser")
}

func TestSweepLeavesWhatItMayNotDrop(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	super := server.URL("postgres")
	require.NoError(t, execute(t.Context(), super, `create role one login createdb password 'x'; create role two login createdb password 'x'`))
	as := func(role string) string { return as(t, super, role) }
	held, free := "rowhook_test_1000000000_held", "rowhook_test_1000000001_free"
	for role, names := range map[string][]string{"one": {held, free}, "two": {"rowhook_test_1000000002_two", "rowhook_template_1000000003_two"}} {
		for _, name := range names {
			require.NoError(t, execute(t.Context(), as(role), "create database "+name))
		}
	}
	session, err := clone.WithDatabase(super, held)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), session)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	require.NoError(t, clone.Sweep(t.Context(), as("one")))
	require.ElementsMatch(t, []string{held, "rowhook_test_1000000002_two", "rowhook_template_1000000003_two"}, databases(t, super, "rowhook%"))
	require.NoError(t, clone.Sweep(t.Context(), super))
	require.Empty(t, databases(t, super, "rowhook%"))
}

// CREATE DATABASE leaves these settings out.
func TestClonesHaveTheSettingsOfTheirTemplate(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t).URL("postgres")
	require.NoError(t, execute(t.Context(), server, "create role app login"))
	tp, _ := template(t, `do $$ begin
		execute format('alter database %I set search_path = "my App", public', current_database());
		execute format('alter database %I set rowhook.note = %L', current_database(), 'it''s; "x", y');
		execute format('alter role app in database %I set work_mem = ''7MB''', current_database());
	end $$`)
	d, err := clone.New(t.Context(), server, tp)
	require.NoError(t, err)
	require.Equal(t, `"my App", public|it's; "x", y`, query[string](t, d.URL, "select current_setting('search_path') || '|' || current_setting('rowhook.note')"))
	require.Equal(t, "{work_mem=7MB}", query[string](t, d.URL, `select setconfig::text from pg_db_role_setting
		where setrole = 'app'::regrole and setdatabase = (select oid from pg_database where datname = current_database())`))
}

func TestATemplateThatFailedIsMadeAgain(t *testing.T) {
	t.Parallel()
	tp, _ := template(t, "")
	broken := tp
	var draft string
	broken.Make = func(_ context.Context, url string) error {
		draft = url[strings.LastIndex(url, "/")+1:]
		return errors.New("no table today")
	}
	_, err := clone.New(t.Context(), admin(t), broken)
	require.EqualError(t, err, "no table today")
	name, _, _ := strings.Cut(draft, "?")
	require.Empty(t, databases(t, admin(t), name))

	dropLater(t, admin(t), tp)
	d, err := clone.New(t.Context(), admin(t), tp)
	require.NoError(t, err)
	require.NoError(t, d.Drop(t.Context(), time.Minute))
}

// Whoever knows no lock, because the session is in another database, makes a second one.
func TestMakersThatDoNotSeeEachOtherGetOneTemplate(t *testing.T) {
	t.Parallel()
	tp, _ := template(t, "create table kept as select 42 as n")
	dropLater(t, admin(t), tp)
	both, arrived := make(chan struct{}), new(atomic.Int32)
	makes := tp.Make
	tp.Make = func(ctx context.Context, url string) error {
		if arrived.Add(1) == 2 {
			close(both)
		}
		<-both
		return makes(ctx, url)
	}
	servers := []string{admin(t), pgtest.NewEmpty(t).URL()}
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	for i, server := range servers {
		wg.Go(func() {
			d, err := clone.New(t.Context(), server, tp)
			if err == nil {
				err = errors.Join(execute(t.Context(), d.URL, "select n from kept"), d.Drop(t.Context(), time.Minute))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

func TestATemplateWithSessionsLeftOpenIsStillCloned(t *testing.T) {
	t.Parallel()
	tp, _ := template(t, "")
	dropLater(t, admin(t), tp)
	tp.Make = func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return err
	}
	d, err := clone.New(t.Context(), admin(t), tp)
	require.NoError(t, err)
	require.NoError(t, d.Drop(t.Context(), time.Minute))
}

func TestDropEndsSessionsAndMayBeLeftToTheServer(t *testing.T) {
	t.Parallel()
	for _, patience := range []time.Duration{time.Minute, 0} {
		d, err := clone.Empty(t.Context(), admin(t), "template0")
		require.NoError(t, err)
		conn, err := pgx.Connect(t.Context(), d.URL)
		require.NoError(t, err)
		defer conn.Close(context.WithoutCancel(t.Context()))
		require.NoError(t, d.Drop(t.Context(), patience))
		require.Eventually(t, func() bool { return len(databases(t, admin(t), d.Name)) == 0 }, time.Minute, 5*time.Millisecond)
	}
}

func TestSweepDropsWhatWasNotUsedForADay(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t).URL("postgres") // of its own: it sweeps all
	now := time.Now()
	name := func(prefix string, age time.Duration) string {
		return prefix + strconv.FormatInt(now.Add(-age).Unix(), 10) + "_x"
	}
	old, young := name("rowhook_test_", 25*time.Hour), name("rowhook_test_", 23*time.Hour)
	oldTemplate := name("rowhook_template_", 25*time.Hour)
	for _, n := range []string{old, young, oldTemplate, "rowhook_template_unused", "rowhook_template_used", "rowhook_test_mine", "rowhook_test", "other"} {
		require.NoError(t, execute(t.Context(), server, "create database "+n))
	}
	require.NoError(t, execute(t.Context(), server, "alter database rowhook_template_unused is_template true"))
	for n, age := range map[string]time.Duration{"rowhook_template_unused": 25 * time.Hour, "rowhook_template_used": time.Hour} {
		require.NoError(t, execute(t.Context(), server, "comment on database "+n+" is 'used "+now.Add(-age).UTC().Format(time.RFC3339)+"'"))
	}
	require.NoError(t, clone.Sweep(t.Context(), server))
	require.ElementsMatch(t, []string{young, "rowhook_template_used", "rowhook_test_mine", "rowhook_test"}, databases(t, server, "rowhook%"))
}

func TestTheUseOfATemplateIsRecorded(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t).URL("postgres")
	tp, made := template(t, "")
	used := func() (age time.Duration) {
		d, err := clone.New(t.Context(), server, tp)
		require.NoError(t, err)
		require.NoError(t, d.Drop(t.Context(), time.Minute))
		text := query[string](t, server, "select shobj_description(oid, 'pg_database') from pg_database where datname like 'rowhook_template_%'")
		at, err := time.Parse(time.RFC3339, strings.TrimPrefix(text, "used "))
		require.NoError(t, err)
		return time.Since(at)
	}
	require.Less(t, used(), time.Minute)
	name := databases(t, server, "rowhook_template_%")[0]
	require.NoError(t, execute(t.Context(), server, "comment on database "+name+" is 'used 2026-01-02T03:04:05Z'"))
	require.Less(t, used(), time.Minute)
	require.EqualValues(t, 1, made.Load())
}

func TestARoleWithoutTheRightIsToldWhichItNeeds(t *testing.T) {
	t.Parallel()
	name, url := pgtest.NewEmpty(t).Role(t)
	_, err := clone.Empty(t.Context(), url, "template0")
	require.ErrorContains(t, err, "alter role \""+name+"\" createdb")
	foreign := query[string](t, pgtest.NewEmpty(t).URL(), "select current_database()::text")
	_, err = clone.Empty(t.Context(), creator(t), foreign)
	require.ErrorContains(t, err, "alter database NAME is_template true")
}

func TestConnectionStringsGetAnotherDatabase(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"postgres://u:p%2F@h:5/old?sslmode=disable": "postgres://u:p%2F@h:5/new?sslmode=disable",
		"postgres://u:p@h:1,i:2/old":                "postgres://u:p@h:1,i:2/new",
		"postgresql://u@h":                          "postgresql://u@h/new",
		"postgres://h/x?dbname=old&sslmode=disable": "postgres://h/new?sslmode=disable",
		"postgres:///old?host=/run/pg&user=u":       "postgres:///new?host=/run/pg&user=u",
		"host=h dbname=old user='a b'":              "host=h dbname=old user='a b' dbname='new'",
		"postgresql+asyncpg://u@h/old?ssl=disable":  "postgresql+asyncpg://u@h/new?ssl=disable",
		"": "dbname='new'",
	} {
		got, err := clone.WithDatabase(in, "new")
		require.NoError(t, err)
		require.Equal(t, want, got)
		if strings.Contains(in, "old") && !strings.Contains(in, "+") {
			config, err := pgx.ParseConfig(got)
			require.NoError(t, err)
			require.Equal(t, "new", config.Database)
		}
	}
	_, err := clone.WithDatabase("postgres://u:secret%@h/x", "new")
	require.ErrorContains(t, err, "escape special characters")
	require.NotContains(t, err.Error(), "secret")
}

func TestShownStringsHaveNoPassword(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"postgres://u:secret@h:1/d?sslmode=disable":                "postgres://u@h:1/d?sslmode=disable",
		"postgres://u@h/d":                                         "postgres://u@h/d",
		"postgres://h/d?user=u&password=secret&sslpassword=secret": "postgres://h/d?user=u",
		"host=h password=secret dbname='d'":                        "host=h dbname='d'",
		`password = 'sec\'ret secret' host=h sslpassword=se\ cret`: "host=h",
		"host=h password= secret dbname=d":                         "host=h dbname=d",
		"host=h user='password=x' dbname=d":                        "host=h user='password=x' dbname=d",
		"postgres://h/d?options=-c%20a=b+c&pass%77ord=secret":      "postgres://h/d?options=-c%20a=b+c",
		"postgres://u:sec%zzret@h/d":                               "",
	} {
		require.Equal(t, want, clone.WithoutPassword(given), given)
	}
}
