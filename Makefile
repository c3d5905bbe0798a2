# make run     the whole path on this machine
# make test    the unit tests, and the end-to-end suite on the local stack
# make help    the rest

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test explain audit build-audit test-store test-deploy test-page test-docs test-sam test-aws aws-parameters build unit e2e e2e-store init-time judges judges-need cdk events build-AuthorizerFunction build-ProtectedFunction sam-build deploy forget-keys pin-keys unpin-keys set-parameter lint fuzz fleet bench compare cover clean dist verify-release newest vuln workflows

# SAM as make test-deploy and make test-sam have installed it, where there is no other.
export PATH := $(PATH):$(CURDIR)/.tools/sam/bin

# make run
API_PORT   ?= 8080
ZUPLO_PORT ?= 9000
ALG        ?= EdDSA
TOKENS     ?= fresh
GIVEN       = $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v)) # names of variables on the command line

# make test-store
STORE ?= ministack

FUZZTIME ?= 10s

# modules beside the main one
MODULES = test/bench test/terraform tools tools/audit

# A go.work in a folder above would decide what is compiled.
export GOWORK := off

# make compare
ROUNDS ?= 20
PAGE   ?= docs/performance.md

ifeq ($(origin ARCH),command line)
$(error ARCH is no setting: the functions' architecture is Mappings, Build, Functions, Architecture in template.yaml, arm64 or x86_64)
endif

# A target's comment is its group, how long it takes (two cores, everything downloaded), and what it does.
help: ## Try, at once: this list
	@awk '/^[a-z0-9-]+:.*## / { name = text = $$0; sub(/:.*/, "", name); sub(/.*## /, "", text); group = text; sub(/,.*/, "", group); \
		if (text !~ /^(Try|Deploy|Check|Maintain), [^:]+: ./) { print "Makefile: the comment of " name " is not GROUP, TIME: TEXT"; bad = 1 } \
		time = substr(text, length(group) + 3); sub(/: .*/, "", time); sub(/^[^:]*: /, "", text); \
		lines[group] = lines[group] sprintf("  make %-15s %-14s %s\n", name, time, text) } \
		END { n = split("Try Deploy Check Maintain", groups, " "); for (i = 1; i <= n; i++) printf "%s\n%s", groups[i], lines[groups[i]]; exit bad }' Makefile

run: build $(if $(filter 1,$(STORE)),.tools/ministack/installed) ## Try, 3 s: the whole path on this machine (API_PORT, ZUPLO_PORT, ALG, TOKENS=fresh|cached, STORE=1); Ctrl-C ends it
	@MAKE_VARIABLES='$(strip $(GIVEN))' $(if $(filter 1,$(STORE)),test/targets/with-store.sh) build/local -api-port $(API_PORT) -zuplo-port $(ZUPLO_PORT) -alg $(ALG) -tokens $(TOKENS)

test: unit e2e ## Check, 4 min: unit tests with -race and coverage, then the end-to-end suite against the local stack
	@echo "left out, because this is Go only: the shared store on a DynamoDB, make test-store STORE=ministack and STORE=dynamodb-local"

build: ## Try, 2 s: both functions, explain and the local stack, for this machine, in build/
	@echo "building authorizer, protected, explain and the local stack (the first time Go fetches and compiles what they need, which takes a minute or two)" >&2
	@for of in authorizer/bootstrap:authorizer protected/bootstrap:protected explain:explain local:local; do \
		tools/build.sh build/$${of%:*} ./$${of#*:} && echo "  build/$${of%:*}" >&2 || exit 1; done

explain: ## Try, 2 s: why would the authorizer refuse this token? make explain < TOKEN, with its variables in the environment (FLAGS="-env FILE -route 'GET /orders'")
	@tools/build.sh build/explain ./explain
	@build/explain $(FLAGS)

audit: build-audit ## Deploy, 10 s: what is deployed before and around the authorizer, and what of it is open or wrong (API=ID or STACK=NAME; OPEN='GET /health', DIST=dist, FLAGS=-json)
	@build/audit $(if $(API),-api '$(API)',-stack '$(STACK)') -open '$(OPEN)' -dist '$(or $(DIST),dist)' -explain build/explain $(FLAGS)

build-audit:
	@tools/build.sh build/explain ./explain
	@cd tools/audit && ../build.sh ../../build/audit .

# The race detector needs cgo, and Go turns cgo off where it finds no C compiler.
unit: build
	@race=-race; if [ "$$(go env CGO_ENABLED)" != 1 ]; then race=; \
		echo "make test: NO RACE DETECTOR, cgo is off (no C compiler?): the tests run without -race" >&2; fi; \
	pkgs=$$(go list ./...) && \
	go test $$race -coverprofile=build/cover.all $$(echo "$$pkgs" | grep -v '/e2e$$\|/fleet/simulation$$')
	@for m in tools/audit test/terraform tools; do go -C $$m test -count=1 ./... || exit 1; done # what they read is outside of their modules, so no result may be kept
	@go test ./internal/fleet/simulation # what it drives runs under -race above; it would take minutes itself
	@grep -E '^mode:|/(internal|authorizer)/' build/cover.all > build/cover.out
	@awk 'NR > 1 { d = $$1 ~ "^[^/]*/internal/" ? "internal/" : "authorizer/"; n[d] += $$2; if ($$3) hit[d] += $$2 } \
		END { low = 0; split("internal/ authorizer/", dirs, " "); for (i = 1; i <= 2; i++) { d = dirs[i]; \
		pc = n[d] ? 100 * hit[d] / n[d] : 0; printf "statement coverage of %-11s %5.1f %% (%d of %d)\n", d, pc, hit[d], n[d]; \
		if (pc < 90) { printf "statement coverage of %s is below 90 %%\n", d; low = 1 } } exit low }' build/cover.out

# Twice: with times so short that the suite sees keys grow due and stale, and with keys that stay fresh while it counts
# the fetches that a flood causes. What the one stack cannot do, the other can.
e2e: build
	@JWKS_TTL=1s JWKS_MAX_STALE=6s LEEWAY=0s MAX_TOKEN_AGE=1h TARGET='local, short TTL' EXPLAIN=$(CURDIR)/build/explain $(call SUITE,short,)
	@JWKS_TTL=5m TARGET='local, long TTL' $(call SUITE,long,-run TestFlood)

# The functions' log lines, some 20,000 of them, go to a file.
SUITE = build/local -api-port 0 -zuplo-port 0 -- go -C test/e2e test -count=1 $(2) 2>build/e2e-$(1).log || \
	{ echo "the end of build/e2e-$(1).log:"; tail -n 60 build/e2e-$(1).log; exit 1; }

test-store: $(if $(filter ministack dynamodb-local,$(STORE)),.tools/$(STORE)/installed,test-store-unknown) ## Check, 6 to 40 s: the shared store on emulators of DynamoDB (STORE=ministack|dynamodb-local)
	@go test -c -tags store -o build/jwkstable.test ./internal/jwkstable
	@test/targets/store.sh $(STORE)

test-store-unknown:
	@echo 'STORE is "$(STORE)", it must be ministack or dynamodb-local' >&2; exit 1

test-deploy: build build-audit cdk dist .tools/sam/installed .tools/aws/installed .tools/ministack/installed ## Check, 6 min: the suite against ministack, an emulator of AWS, after a real sam deploy, and a release deployed from dist/
	@HOST_ARCH=$(HOST_ARCH) test/targets/ministack.sh

test-page: build ## Check, 60 s: the page of make run, in Chromium (SHOT=FILE keeps a picture); needs apt-get install chromium chromium-driver
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { echo "make test-page needs Chromium and its driver: on Debian, apt-get install chromium chromium-driver" >&2; exit 1; }
	@SHOT=$(abspath $(SHOT)) $(call PAGE_SUITE,page,TestPage)
	@JWKS_TTL=2s JWKS_MAX_STALE=4s RULES='[{"routes": ["GET /protected"]}, {"routes": ["GET /orders/*"], "scopes": ["orders:read"]}]' $(call PAGE_SUITE,page-rules,TestRules)

PAGE_SUITE = build/local -api-port 0 -zuplo-port 0 -- go test -count=1 -tags page -run $(2) ./test/page 2>build/$(1).log || \
	{ echo "the end of build/$(1).log:"; tail -n 30 build/$(1).log; exit 1; }

test-docs: build ## Check, 40 s: the commands of README.md, docs/ and examples/, taken out of the text; needs curl
	@go test -count=1 -tags docs ./test/docs

test-sam: build .tools/sam/installed ## Check, 5 min: the event files and the suite with sam local (SAM_PORT=3000); needs Docker's engine: apt-get install docker.io iptables
	@$(MAKE) --no-print-directory sam-build >build/sam-build.log 2>&1 || { cat build/sam-build.log >&2; exit 1; }
	@HOST_ARCH=$(HOST_ARCH) test/targets/sam-local.sh

test-aws: build ## Check, some minutes: the suite against a deployed stage (API=https://... KEYS=FILE, or a real gateway's ISSUER, ZUPLO_URL, ZUPLO_API_KEY)
	@test/targets/aws.sh test

aws-parameters: build ## Deploy, 3 s: parameters for a stage that takes the tokens of make test-aws KEYS=FILE, for sam deploy
	@test/targets/aws.sh parameters

export API KEYS

HOST_ARCH = $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)

# Tools that come from Python's index, each in an environment of its own. All that they need is in the list: --no-deps
# keeps pip from looking for more.
.tools/%/installed: tools/%.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "installing $* needs python3 (3.10 or later, with venv): on Debian, apt-get install python3-venv" >&2; exit 1; }
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# The jars must be the ones that are listed, all of them and no others.
.tools/dynamodb-local/installed: tools/dynamodb-local/pom.xml tools/dynamodb-local/sha256
	@command -v mvn >/dev/null || { echo "installing DynamoDB Local needs Maven: on Debian, apt-get install maven" >&2; exit 1; }
	rm -rf $(@D)
	mvn -q -B -Dstyle.color=never -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(@D) -DincludeScope=runtime
	cd $(@D) && sha256sum --check --quiet --strict $(CURDIR)/tools/dynamodb-local/sha256 && [ $$(ls | wc -l) = $$(wc -l <$(CURDIR)/tools/dynamodb-local/sha256) ]
	touch $@

judges: build cdk dist workflows .tools/judges-venv/installed test/judges/node_modules/installed ## Check, 3 min: third-party linters and JWT libraries about templates, tokens, policies, patterns
	@.tools/judges-venv/bin/python test/judges/templates.py
	go test -count=1 -tags judges ./test/judges

judges-need:
	@lacks=; python3 -c 'import ensurepip, tomllib, venv' 2>/dev/null || lacks="python3 (3.11 or later, with venv)"; \
	for c in node npm java; do command -v $$c >/dev/null || lacks="$${lacks:+$$lacks, }$$c"; done; \
	[ -z "$$lacks" ] || { echo "make judges needs what is not installed: $$lacks" >&2; exit 1; }

.tools/judges-venv/installed: test/judges/requirements.txt | judges-need
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	touch $@

test/judges/node_modules/installed: test/judges/package-lock.json | judges-need
	cd test/judges && npm ci
	touch $@

cdk: build/cdk/orders-cdk.template.json ## Check, 2 s: the example for the CDK, synthesised into build/cdk/, and what must hold of it
	@go test -count=1 -tags cdk -run '^TestCDK$$' ./test/template

build/cdk/orders-cdk.template.json: examples/cdk/app.ts examples/cdk/tsconfig.json examples/cdk/node_modules/installed
	@rm -rf $(@D)
	cd examples/cdk && CDK_OUTDIR=$(CURDIR)/$(@D) npm run --silent app
	@touch $@

examples/cdk/node_modules/installed: examples/cdk/package-lock.json
	@for c in node npm; do command -v $$c >/dev/null || { echo "make cdk needs $$c, which is not installed: on Debian, apt-get install nodejs npm" >&2; exit 1; }; done
	cd $(dir $<) && npm ci
	touch $@

# Keys that are shared outlive the process that fetched them, and the fleet asks once in 6 s: the cases that count each
# process's fetches, or rotate keys at once, do not hold.
e2e-store: build .tools/ministack/installed ## Check, 12 s: the cases about shared keys, and the plain ones, with a table in ministack's DynamoDB
	@LEEWAY=0s MAX_TOKEN_AGE=1h TARGET='local, shared keys' test/targets/with-store.sh $(call SUITE,store,-run 'TestShared|TestAllow|TestGateway|TestZuplo|TestReject/(header|EdDSA)')

init-time: build .tools/ministack/installed ## Maintain, 10 s: how long the authorizer takes to start, without and with a table of shared keys
	@test/targets/with-store.sh build/local -zuplo-port 0 -api http://127.0.0.1 -- python3 test/targets/init.py

events: ## Maintain, 2 s: the event files for sam local invoke anew, with new keys
	rm -f events/*.json
	go run ./events events

# sam build calls these, with ARTIFACTS_DIR, and by way of tools/arch/, which says for what.
build-AuthorizerFunction: PKG := ./authorizer
build-ProtectedFunction: PKG := ./protected
build-AuthorizerFunction build-ProtectedFunction:
	@$(if $(and $(ARTIFACTS_DIR),$(FUNCTION_GOARCH)),,$(error $@ is for sam build, which comes by way of tools/arch/ and sets ARTIFACTS_DIR; make build builds for this machine))
	tools/build.sh "$(ARTIFACTS_DIR)/bootstrap" $(PKG) $(FUNCTION_GOARCH)

# The template is the real one, except for the architecture. .aws-sam is left alone: sam deploy ships what lies there.
sam-build: ## Deploy, 4 s: both functions through sam build for this machine, in build/sam, as sam local needs them
	@command -v sam >/dev/null || { echo "make $@ needs the AWS SAM CLI, which is not installed" >&2; exit 1; }
	@mkdir -p build
	sed 's/^      Architecture: .*/      Architecture: $(HOST_ARCH)/' template.yaml >build/template.yaml
	SAM_CLI_TELEMETRY=0 sam build --template build/template.yaml --base-dir . --build-dir build/sam

deploy: ## Deploy, some minutes: sam build, sam deploy (PARAMS='Issuer=https://... Audience=...')
	@$(if $(findstring Architecture=,$(PARAMS)),$(error PARAMS names Architecture, which is no parameter: it is Mappings, Build, Functions, Architecture in template.yaml))
	@command -v sam >/dev/null || { echo "make $@ needs the AWS SAM CLI, which is not installed" >&2; exit 1; }
	sam build
	sam deploy $(if $(PARAMS),--parameter-overrides $(PARAMS))

# What an operator does to a stack that runs. docs/operations.md has the same for operators who have no checkout.
export STACK ?= zuplo-lambda-authorizer
forget-keys: ## Deploy, a minute: new environments, no shared key set, no cached policies, at once (STACK)
	@tools/stack.sh forget-keys

pin-keys: ## Deploy, a minute: the key set in a file instead of the issuer's, at once (STACK JWKS=FILE)
	@tools/stack.sh pin-keys "$(JWKS)"

unpin-keys: ## Deploy, a minute: the issuer's keys again (STACK)
	@tools/stack.sh unpin-keys

set-parameter: ## Deploy, a minute: another value of one of the authorizer's settings (STACK NAME=JwksTtl VALUE=1m)
	@tools/stack.sh set-parameter "$(NAME)" "$(VALUE)"

dist: ## Deploy, 30 s: a release in dist/: zips for both architectures, templates, SBOMs, licenses, checksums (TAG=v1.2.3 to be sure it is that one)
	@go -C tools build -o ../build/tools/dist ./dist
	@build/tools/dist -tag "$(TAG)" build dist

verify-release: ## Deploy, 40 s: whether a release holds the same bytes as one built from this checkout (DIR)
	@go -C tools build -o ../build/tools/dist ./dist
	@build/tools/dist verify "$(DIR)"

newest: ## Check, 4 min: make test with the newest dependencies, in a copy
	@tools/newest.sh

# The database of vulnerabilities is fetched, or VULNDB=file://... names a copy.
vuln: ## Check, a minute: what is known to be vulnerable in the code that is called, by govulncheck
	go tool -modfile=tools/go.mod govulncheck $(if $(VULNDB),-db $(VULNDB)) -tags lambda.norpc ./authorizer ./protected

workflows: .tools/workflows/installed ## Check, 16 s: the workflows and Dependabot's settings, judged by actionlint and zizmor, offline
	go tool -modfile=tools/go.mod actionlint
	.tools/workflows/bin/zizmor --offline --no-progress --persona=auditor --strict-collection .

lint: ## Check, 45 s: gofmt, go vet (for macOS, too), staticcheck, the comments of make help
	@list=$$($(MAKE) --no-print-directory help) || { echo "$$list" | grep '^Makefile:'; exit 1; }
	@out=$$(gofmt -l .) && if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet -tags judges,store,cdk,docs,page ./...
	GOOS=darwin go vet ./...
	for m in $(MODULES); do go -C $$m vet ./... || exit 1; done
	go tool -modfile=tools/go.mod staticcheck -tags judges,store,cdk,docs,page ./...
	for m in $(MODULES); do (cd $$m && go tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...) || exit 1; done

fuzz: ## Check, 4 min: every fuzz target for FUZZTIME (10s)
	@n=0; for pkg in $$(go list ./internal/... ./authorizer); do \
		list=$$(go test -list '^Fuzz' $$pkg) || { echo "$$list"; exit 1; }; \
		for f in $$(echo "$$list" | grep '^Fuzz'); do \
			n=$$((n + 1)); echo "$$pkg $$f"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done; [ $$n -gt 0 ] || { echo "make fuzz: no fuzz targets found"; exit 1; }

fleet: ## Maintain, some minutes: 200 to 1,500 environments with one table on a simulated clock, measured into docs/fleet.md
	@FLEET_TABLE=$(CURDIR)/docs/fleet.md go test -count=1 -timeout 30m ./internal/fleet/simulation

bench: ## Maintain, 12 s: benchmarks
	go test -run '^$$' -bench . -benchmem ./internal/... ./authorizer

compare: build test/bench/aws-jwt-verify/node_modules/installed ## Maintain, 6 min: the authorizer beside those written with other libraries, measured into docs/performance.md (ROUNDS=20)
	@cd test/bench && for f in hello keyfunc oidc; do ../../tools/build.sh ../../build/bench/$$f/bootstrap ./$$f || exit 1; done
	@go -C test/bench build -trimpath -buildvcs=false -o ../../build/bench/compare .
	@go -C test/bench test ./...
	@build/bench/compare -rounds $(ROUNDS) -page '$(PAGE)'

test/bench/aws-jwt-verify/node_modules/installed: test/bench/aws-jwt-verify/package-lock.json
	@for c in node npm; do command -v $$c >/dev/null || { echo "make compare needs $$c, which is not installed: on Debian, apt-get install nodejs npm" >&2; exit 1; }; done
	cd $(dir $<) && npm ci
	touch $@

cover: unit ## Maintain, 3 min: coverage, line by line, as build/cover.html
	go tool cover -html=build/cover.out -o build/cover.html

clean: ## Maintain, at once: remove what was built
	rm -rf build dist .aws-sam
