# Names for what scripts/ does. ARGS goes on to the script: make test ARGS="./dispatcher -run Claim"
.DEFAULT_GOAL := help
ARGS ?=

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: ## run Rowhook from source, with a private PostgreSQL and a receiver, until Ctrl-C
	scripts/dev $(ARGS)

once: ## show three deliveries and exit
	scripts/dev --once

build: ## build the program into bin/rowhook
	CGO_ENABLED=0 go build -o bin/rowhook .

release: ## make what a release is made of into .cache/dist, as VERSION says: programs, packages, images
	scripts/release --snapshot $(ARGS)

packages: ## make two snapshots, and try their packages: install, deliver, upgrade, remove
	scripts/release --check $(ARGS)

image: ## build the container image rowhook
	docker build -t rowhook .

up: ## start PostgreSQL, Rowhook and a receiver with docker compose
	docker compose up --build

test: ## every check and test, on the installed PostgreSQL: 7 to 10 minutes
	scripts/test $(ARGS)

test-all: ## the tests on PostgreSQL 14 to 18
	scripts/test --postgres all $(ARGS)

race: ## the tests with the race detector, of what runs concurrently
	scripts/test --no-lint --race ./dispatcher ./listener ./internal/queue ./internal/cli $(ARGS)

browser: ## the tests of the dashboard, in Chromium
	scripts/test --no-lint --browser $(ARGS)

lint: ## format, vet and golangci-lint, and the tests that hold the documentation to the code
	scripts/test --lint ./docs

model: ## check the model of the doorbell and the claim
	scripts/model $(ARGS)

examples: ## run the suites in examples/ with pytest, Node, go test and docker compose
	scripts/examples $(ARGS)

charts: ## render the Helm chart and the Kustomize base, and check them
	scripts/charts $(ARGS)

site: ## make the documentation a site in .cache/site/dist, and check it
	scripts/site $(ARGS)

torture: ## a minute of faults, and then count
	scripts/torture $(ARGS)

bench: ## measure, in two minutes
	scripts/bench --quick $(ARGS)

sources: ## measure what many databases cost one process
	scripts/sources $(ARGS)

outage: ## stage outages under a real Prometheus, and see the alerts fire
	scripts/outage $(ARGS)

chromium: ## print where the Chromium is, and axe-core, that the tests of the dashboard use
	@scripts/browser chromium
	@scripts/browser axe

promtool: ## print where Prometheus' promtool is, which the tests of the alerts use
	@scripts/prometheus promtool

types: ## check the types of the dashboard's modules, and its files of other projects
	scripts/types $(ARGS)

vendor: ## write the dashboard's files of other projects anew, from their npm packages
	scripts/vendor $(ARGS)

generate: ## write the references in docs/ anew: the JSON Schema, the commands, the metrics, the HTTP interface
	go test ./internal/config -run UpToDate -update
	go test ./internal/cli -run CommandReference -update
	go test ./internal/metrics -run Reference -update
	go test ./internal/httpapi -run Reference -update

ci: ## all that a change must pass: 15 minutes
	.ci/run

clean: ## remove what was built and downloaded
	rm -rf bin .cache

.PHONY: help dev once build release packages image up test test-all race browser lint model examples charts site torture bench outage sources promtool chromium types vendor generate ci clean
