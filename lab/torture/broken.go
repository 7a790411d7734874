package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutation removes a rule from the program, to see that the torture test notices.
type mutation struct {
	edits  []edit
	only   []string // faults that reveal it
	listen bool     // each dispatcher has a listen path of its own
	// sources and nats say that the run has several sources, and a stream.
	sources int
	nats    bool
}

// edit changes one file.
type edit struct {
	file    string // in the module
	find    string // a regular expression
	replace string
	times   int // how many matches there have to be
}

func mutations() map[string]mutation {
	return map[string]mutation{
		// Settle updates the row with the event's id even if another instance has claimed it since.
		"fence": {
			edits: []edit{{"internal/queue/settle.go", "`q.claimed_by = \\$6 and q.tries = r.tries and q.claim = r.claim`", "`$6::integer is not null`", 1}},
			only:  []string{faultZombie, moodFailing, moodSeconds},
		},
		// The bell counts as armed as soon as it is set, although transactions that saw it silent
		// are still open.
		"horizon": {edits: []edit{{"internal/queue/doorbell.go", `return n, nil`, "return 0, nil", 1}}, only: []string{faultLong, faultApply}},
		// The claims of dead instances are not given back.
		"reclaim": {
			edits: []edit{{"internal/queue/giveback.go", `attemptsKept \+ entriesHeld`, "attemptsKept + entriesHeld + ` and false`", 1}},
			only:  []string{faultKill, faultLong},
		},
		// An instance that has lost its listening session counts as dead, although it records its
		// beat by other sessions.
		"pulse": {
			edits: []edit{
				{"dispatcher/lifesigns.go", `s\.Instance != i `, "s.Locked != i.Locked ", 1},
				{"dispatcher/lifesigns.go", `if s\.Listens && !s\.Locked \{\n\t\twithin`, "if !s.Locked {\n\t\twithin", 1},
				{"internal/queue/giveback.go", `dead\[n\]\.ID, dead\[n\]\.Seen`, "dead[n].ID, whenever", 1},
			},
			only:   []string{listenLost, listenAllLost, faultLong},
			listen: true,
		},
		// Only the bell and the poll make a dispatcher look, even a dispatcher that can't hear the
		// bell.
		"deaf": {
			edits:  []edit{{"dispatcher/claimer.go", `if !s\.listens && !c\.noListen`, "if false", 1}},
			only:   []string{listenLost, listenAllLost},
			listen: true,
		},
		// Endpoints that are down get every event that waits.
		"breaker": {
			edits: []edit{{"dispatcher/breaker.go", `b\.enter\(breakerFailing, 0, now\)\n\treturn true`, "return false", 1}},
			only:  []string{moodDown, faultLong},
		},
		// A trigger with a rate sends as fast as one without.
		"rate": {
			edits: []edit{{"dispatcher/pace.go", `return p\.rate\.IsZero\(\)`, "return true", 1}},
			only:  []string{moodDown, faultLong},
		},
		// A batch that fails is given up as a whole when its events have used up their attempts.
		"neighbours": {
			edits: []edit{
				{"dispatcher/batchsender.go", `len\(part\) == 1 \|\| !b\.halves\(part, &result\)`, "true", 1},
				{"dispatcher/batchsender.go", `what == queue\.Dead && !o\.proven`, "false", 1},
			},
			only: []string{moodFailing, faultLong},
		},
		// A settlement whose history can't be written is retried until it can.
		"history": {
			edits: []edit{{"dispatcher/settler.go", `bare, blamed = true, (made|err)`, "_ = blamed", 2}},
			only:  []string{faultHistory, faultLong},
		},
		// The owner of a lane sends the next event of a key while the one before is in flight.
		"next": {
			edits: []edit{{"internal/order/lanes.go", `if k\.out > 0 \{`, "if false {", 1}},
			only:  []string{moodFailing, faultLong},
		},
		// The owner of a lane does not look for what a transaction has committed late.
		"late": {
			edits: []edit{
				{"internal/order/horizon.go", `from, late = h\.above\(xid\), true`, "late = xid == 0 && from == 0", 1},
				{"internal/order/horizon.go", `return h\.above\(xid\)\n`, "return max(int64(xid), math.MaxInt64)\n", 1},
			},
			only: []string{faultLong, moodFailing},
		},
		// A dispatcher that was taken for dead goes on with its lanes, and settles what is in them.
		"lanes": {
			edits: []edit{
				{"internal/queue/lanesettle.go", `l\.epoch = w\.epoch and l\.owner = \$6 for share`, "$6::integer is not null for share", 1},
				{"internal/queue/lanesettle.go", ` and \(q\.tries = r\.tries - 1 or q\.tries = r\.tries and q\.claim is not null\)`, "", 1},
				{"dispatcher/orderer.go", `!o\.pulse\.isFresh\(time\.Now\(\)\) \|\| !p\.grant\.holds\(o\.pulse\.doubts\.Load\(\)\)`, "p.grant == nil", 1},
				{"dispatcher/orderer.go", `!o\.pulse\.isFresh\(now\)`, "false", 1},
			},
			only: []string{faultZombie, moodFailing, moodSeconds},
		},
		// Events of a trigger with a delay are due at once.
		"delay": {
			edits: []edit{{"sqlschema/delay.go", `d\.Std\(\)/time\.Millisecond`, "0*d.Std()/time.Millisecond", 1}},
			only:  []string{faultLong, faultTerminate},
		},
		// Who looks for events of a trigger with a delay when they are recorded does not ask when they
		// will be due.
		"asleep": {
			edits: []edit{{"dispatcher/scheduler.go", `if l\.trigger\.Spec\.Delay > 0 \{`, "if false {", 2}},
			only:  []string{faultLong, faultApply},
		},
		// Events are sent however old they are.
		"age": {
			edits: []edit{
				{"dispatcher/retry.go", `spec\.Retry\.MaxAge > 0 && !now\.Before`, "spec.Retry.MaxAge < 0 && !now.Before", 1},
				{"dispatcher/retry.go", `spec\.Retry\.MaxAge <= 0 \|\| what`, "spec.Retry.MaxAge >= 0 || what", 1},
				{"dispatcher/givingup.go", `l\.trigger\.Spec\.Retry\.MaxAge <= 0`, "l.trigger.Spec.Retry.MaxAge >= 0", 1},
			},
			only: []string{moodDown, faultLong},
		},
		// What is claimed and being sent is given up by its age, too.
		"flying": {
			edits: []edit{
				{"internal/queue/expire.go", `q\.claimed_by is null and `, "", 2},
				{"internal/queue/expire.go", ` and q\.due_at <= statement_timestamp\(\)`, "", 2},
			},
			only: []string{moodDown, faultLong},
		},
		// An event that was handed over is taken whenever somebody announces it.
		"announced": {
			edits: []edit{{"dispatcher/handover.go", `s\.handed\.deliveries\[e\.ID\] != nil \|\| s\.handed\.settled\[e\.ID\]`, "false", 1}},
			only:  []string{faultForge, faultLong},
		},
		// What was handed over to an instance that is gone is not given back.
		"strays": {
			edits: []edit{{"internal/queue/handover.go", "const strays = `", "const strays = `false and ", 1}},
			only:  []string{faultOrphan, faultLong},
		},
		// What was handed over and may not be sent is not given back.
		"refused": {
			edits: []edit{{"dispatcher/handover.go", `t\.sender\.begin\(start, unsent\)`, "t.sender.begin(start, nil)\n_ = unsent", 1}},
			only:  []string{moodDown, moodGone},
		},
		// A paused trigger is claimed for and sent like any other.
		"pause": {
			edits: []edit{{"dispatcher/lane.go", `l\.trigger\.Paused \|\| `, "", 1}},
			only:  []string{moodGone, faultLong},
		},
		// An attempt whose answer pauses the trigger counts.
		"counted": {
			edits: []edit{{"dispatcher/sender.go", `what, delay = queue\.Released, wait`, "what, delay = queue.Retried, wait", 1}},
			only:  []string{moodGone, faultLong},
		},
		// A message that is published again has another id, so that the stream stores it again.
		"message": {
			edits: []edit{{"webhook/message.go", `HeaderMsgID, parcel\{event: e\}\.id\(\)\)`, "HeaderMsgID, parcel{event: e}.id()+strconv.Itoa(e.CurrentRetry))", 1}},
			only:  []string{streamStall, streamAbandon, faultKill},
			nats:  true,
		},
		// A body names no source.
		"source": {
			edits:   []edit{{"dispatcher/dispatcher.go", `scheduler\.source = cfg\.MaxBody, cfg\.SourceName`, `scheduler.source = cfg.MaxBody, ""`, 1}},
			only:    []string{faultLong, faultTerminate},
			sources: 2,
		},
		// What is captured at commit has the row as it was before the last change of the transaction.
		"commit": {
			edits: []edit{{"sqlschema/commit.go", `judge\("seen\.row_first, row_now"\)`, `judge("row_was, row_now")`, 1}},
			only:  []string{faultLong, faultTerminate},
		},
	}
}

func brokenNames() []string { return slices.Sorted(maps.Keys(mutations())) }

// apply returns the source without the rule.
func (e edit) apply(source string) (string, error) {
	re, err := regexp.Compile(e.find)
	if err != nil {
		return "", fmt.Errorf("read the mutation: %w", err)
	}
	if n := len(re.FindAllString(source, -1)); n != e.times {
		return "", fmt.Errorf("break %s: the rule was found %d times instead of %d: update the mutation in lab/torture/broken.go", e.file, n, e.times)
	}
	return re.ReplaceAllLiteralString(source, e.replace), nil
}

// apply returns the changed files of the module in a directory, by name.
func (m mutation) apply(root string) (map[string]string, error) {
	changed := map[string]string{}
	for _, e := range m.edits {
		source, known := changed[e.file]
		if !known {
			text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.file)))
			if err != nil {
				return nil, fmt.Errorf("break a rule: %w", err)
			}
			source = string(text)
		}
		var err error
		if changed[e.file], err = e.apply(source); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// build compiles rowhook, without a rule if one is to be broken. The tree itself is not changed.
func (l *lab) build(ctx context.Context) (string, error) {
	if l.opt.binary != "" && l.opt.broken == "" {
		path, err := filepath.Abs(l.opt.binary)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", l.opt.binary, err)
		}
		return path, nil
	}
	binary := filepath.Join(l.dir, "rowhook")
	args := []string{"build", "-o", binary}
	if l.opt.nats {
		args = append(args, "-tags", "nats")
	}
	if l.opt.broken != "" {
		overlay, err := l.overlay(ctx, mutations()[l.opt.broken])
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "github.com/rowhook/rowhook")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build rowhook: %w\n%s", err, out)
	}
	return binary, nil
}

// overlay writes the changed files, and the file that tells the compiler about them.
func (l *lab) overlay(ctx context.Context, m mutation) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	changed, err := m.apply(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, source := range changed {
		copied := filepath.Join(l.dir, fmt.Sprintf("broken%d.go", len(replace)))
		replace[filepath.Join(root, filepath.FromSlash(file))] = copied
		if err := os.WriteFile(copied, []byte(source), 0o600); err != nil {
			return "", fmt.Errorf("break a rule: %w", err)
		}
	}
	list := filepath.Join(l.dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err := errors.Join(err, os.WriteFile(list, text, 0o600)); err != nil {
		return "", fmt.Errorf("break a rule: %w", err)
	}
	return list, nil
}
