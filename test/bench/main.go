package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"zuplo-lambda-authorizer/local/lambdahost"
)

func main() {
	rounds := flag.Int("rounds", 20, "how often each contestant has its turn")
	binaries := flag.String("binaries", "build", "folder of the compiled functions")
	page := flag.String("page", "", "file to write the tables into; empty: none")
	flag.Parse()
	if err := run(*rounds, *binaries, *page); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// A contestant is a function that is measured.
type contestant struct {
	name     string
	binary   string
	env      []string
	verifies bool
	version  string
}

func contestants(binaries string) ([]contestant, error) {
	list := []contestant{
		{name: ours, binary: "authorizer", verifies: true},
		{name: hello, binary: "bench/hello"},
		{name: hello + ", `GOMAXPROCS=1`", binary: "bench/hello", env: []string{"GOMAXPROCS=1"}},
		{name: keyfunc, binary: "bench/keyfunc", verifies: true},
		{name: "go-oidc", binary: "bench/oidc", verifies: true},
	}
	for n := range list {
		c := &list[n]
		c.binary = filepath.Join(binaries, c.binary, "bootstrap")
		info, err := buildinfo.ReadFile(c.binary)
		if err != nil {
			return nil, err
		}
		var of []string
		for _, d := range info.Deps {
			if slices.Contains([]string{"github.com/aws/aws-lambda-go", "github.com/golang-jwt/jwt/v5", "github.com/MicahParks/keyfunc/v3", "github.com/coreos/go-oidc/v3"}, d.Path) {
				of = append(of, d.Path[strings.IndexByte(d.Path, '/')+1:]+" "+d.Version)
			}
		}
		c.version = strings.Join(of, ", ") + ", " + info.GoVersion
	}
	node := contestant{name: "aws-jwt-verify", binary: "test/bench/aws-jwt-verify/bootstrap", verifies: true}
	version, err := exec.Command("node", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking node for its version: %w", err)
	}
	var manifest struct{ Version string }
	text, err := os.ReadFile("test/bench/aws-jwt-verify/node_modules/aws-jwt-verify/package.json")
	if err == nil {
		err = json.Unmarshal(text, &manifest)
	}
	if err != nil {
		return nil, fmt.Errorf("reading aws-jwt-verify's version: %w", err)
	}
	node.version = "aws-jwt-verify v" + manifest.Version + ", Node " + strings.TrimSpace(string(version))
	return append(list, node), nil
}

const (
	ours    = "this authorizer"
	hello   = "hello-world"
	keyfunc = "golang-jwt + keyfunc"
)

// host runs a contestant. jwksURI is where it finds the keys.
func (c contestant) host(i *issuer, jwksURI string) *lambdahost.Host {
	return lambdahost.New(lambdahost.Function{
		Name: "Fn", Binary: c.binary, Timeout: 10 * time.Second,
		Env: append([]string{"ISSUER=" + i.name, "JWKS_URI=" + jwksURI, "AUDIENCE=" + audience,
			"SSL_CERT_FILE=" + i.rootsFile, "SSL_CERT_DIR=" + i.noRoots, "NODE_OPTIONS=--use-openssl-ca"}, c.env...),
	})
}

// A bench is a run of this command.
type bench struct {
	issuer  *issuer
	eddsa   [][]byte // events
	rs256   [][]byte
	share   *share // nil: this machine has none to give
	samples map[sampled][]float64
	remarks map[sampled]string
}

// sampled is what a sample is of.
type sampled struct{ contestant, measure string }

const (
	warmUp  = 100 // decisions before CPU time is measured, of each algorithm
	blocks  = 10  // that a round's decisions are measured in
	inBlock = 20  // decisions, of each algorithm
	shared  = 4   // starts at a share of the CPU in a round
	rests   = 5   // decisions after them
	rest    = 25 * time.Millisecond
)

func run(rounds int, binaries, page string) error {
	ctx := context.Background()
	list, err := contestants(binaries)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{samples: map[sampled][]float64{}, remarks: map[sampled]string{}}
	if b.issuer, err = newIssuer(dir); err != nil {
		return err
	}
	defer b.issuer.server.Close()
	if b.eddsa, err = b.issuer.events("EdDSA", warmUp+blocks*inBlock); err != nil {
		return err
	}
	if b.rs256, err = b.issuer.events("RS256", warmUp+blocks*inBlock); err != nil {
		return err
	}
	without := ""
	if b.share, err = newShare(); err != nil {
		without = fmt.Sprintf("Not measured: %s of a CPU. It takes a control group: %v.", shareOfCPU, err)
		fmt.Println(without)
	} else {
		defer b.share.remove()
	}
	began, busy := time.Now(), load()
	for _, c := range list {
		if err := b.judge(ctx, c); err != nil {
			return fmt.Errorf("judging %s: %w", c.name, err)
		}
	}
	if b.share != nil { // each CPU keeps a rest of the share for the next: the first has none
		for _, c := range list {
			if err := b.atShare(ctx, c); err != nil {
				return fmt.Errorf("measuring %s: %w", c.name, err)
			}
		}
		clear(b.samples)
	}
	for n := range rounds {
		if err := b.round(ctx, append(slices.Clone(list[n%len(list):]), list[:n%len(list)]...)); err != nil {
			return err
		}
		fmt.Printf("round %d of %d\n", n+1, rounds)
	}
	if b.share != nil {
		if n, err := b.share.throttled(); err != nil || n == 0 {
			return fmt.Errorf("the control group held nobody up, so its figures are none: throttled %d times, %v", n, err)
		}
	}
	text := b.report(list, rounds, without, fmt.Sprintf("%s, %d CPUs, %s; load %.1f before and %.1f after %.0f s.",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), machine(), busy, load(), time.Since(began).Seconds()))
	fmt.Println(text)
	if page == "" {
		return nil
	}
	return insert(page, text)
}

// judge holds that what is measured verifies: it takes good tokens and refuses bad ones. What verifies nothing takes
// those, too.
func (b *bench) judge(ctx context.Context, c contestant) error {
	for _, t := range []struct {
		what, order string
		good        bool
	}{
		{"EdDSA", `{"alg":"EdDSA"}`, true},
		{"RS256", `{"alg":"RS256"}`, true},
		{"EdDSA of another's key", `{"alg":"EdDSA","foreign":true}`, false},
		{"RS256 of another's key", `{"alg":"RS256","foreign":true}`, false},
		{"an expired token", `{"claims":{"exp":1000000000}}`, false},
		{"a token for another audience", `{"claims":{"aud":"other"}}`, false},
		{"a token of another issuer", `{"claims":{"iss":"https://other.example"}}`, false},
		{"a token of no algorithm", `{"header":{"alg":"none"}}`, false},
	} {
		event, err := b.issuer.event(t.order)
		if err != nil {
			return err
		}
		h := c.host(b.issuer, b.issuer.near)
		answer, refused, err := h.Invoke(ctx, event)
		h.Close()
		switch good := t.good || !c.verifies; {
		case err != nil:
			return err
		case good && refused:
			return fmt.Errorf("%s: it refuses with %s", t.what, answer)
		case !good && !refused:
			return fmt.Errorf("%s: it allows it: %s", t.what, answer)
		case refused && !strings.Contains(string(answer), `"Unauthorized"`):
			return fmt.Errorf("%s: it fails with %s", t.what, answer)
		}
	}
	return nil
}

func (b *bench) add(c contestant, measure string, value float64) {
	k := sampled{c.name, measure}
	b.samples[k] = append(b.samples[k], value)
}

const (
	cpuEdDSA   = "CPU of a decision, EdDSA"
	cpuRS256   = "CPU of a decision, RS256"
	startPlain = "start, plain HTTP"
	startNear  = "start, TLS"
	startFar   = "start, TLS from 10 ms away"
	memory     = "peak memory"
	first      = "first decision"
	rested     = "decision after 25 ms of rest"
	dueAlone   = "decision with keys that are due"
	dueShared  = "decision with shared keys that are due"
)

// round measures everything once, each contestant in its turn.
func (b *bench) round(ctx context.Context, list []contestant) error {
	for _, c := range list {
		for _, start := range []struct{ measure, uri string }{{startPlain, b.issuer.plain}, {startNear, b.issuer.near}, {startFar, b.issuer.far}} {
			if err := b.start(ctx, c, start.measure, start.uri); err != nil {
				return fmt.Errorf("measuring %s: %s: %w", c.name, start.measure, err)
			}
		}
		for n := 0; b.share != nil && n < shared; n++ {
			if err := b.atShare(ctx, c); err != nil {
				return fmt.Errorf("measuring %s at %s of a CPU: %w", c.name, shareOfCPU, err)
			}
		}
	}
	for _, c := range list {
		for n := 0; b.share != nil && c.name == ours && n < shared; n++ {
			for _, due := range []struct{ measure, table string }{{dueAlone, ""}, {dueShared, "keys"}} {
				if err := b.due(ctx, c, due.measure, due.table); err != nil {
					return fmt.Errorf("measuring %s: %s: %w", c.name, due.measure, err)
				}
			}
		}
	}
	return b.warm(ctx, list)
}

// start measures from the start of the process to its first decision.
func (b *bench) start(ctx context.Context, c contestant, measure, uri string) error {
	if uri == b.issuer.plain && c.name == "aws-jwt-verify" {
		b.remarks[sampled{c.name, measure}] = "takes https only"
		return nil
	}
	h := c.host(b.issuer, uri)
	defer h.Close()
	took, err := invoke(ctx, h, b.eddsa[0])
	b.add(c, measure, ms(took))
	return err
}

// warm measures the CPU time of decisions, and the memory that the processes have had. They take turns after a few
// decisions, so that whatever slows this machine down slows down all of them.
func (b *bench) warm(ctx context.Context, list []contestant) error {
	hosts := make([]*lambdahost.Host, len(list))
	for n, c := range list {
		hosts[n] = c.host(b.issuer, b.issuer.near)
		defer hosts[n].Close()
	}
	for _, alg := range []struct {
		measure string
		events  [][]byte
	}{{cpuEdDSA, b.eddsa}, {cpuRS256, b.rs256}} {
		used := make([][]float64, len(list))
		for part := range slices.Chunk(alg.events, inBlock) {
			for n, c := range list {
				cpu, err := decisions(ctx, hosts[n], part)
				if err != nil {
					return fmt.Errorf("measuring %s: %s: %w", c.name, alg.measure, err)
				}
				used[n] = append(used[n], cpu)
			}
		}
		for n, c := range list {
			b.add(c, alg.measure, median(used[n][warmUp/inBlock:]))
		}
	}
	for n, c := range list {
		pid, err := only(hosts[n])
		if err != nil {
			return err
		}
		mb, err := peakMemory(pid)
		if err != nil {
			return err
		}
		b.add(c, memory, mb)
	}
	return nil
}

// decisions is the CPU time of each of them, in us. Of a process that they start it is without meaning.
func decisions(ctx context.Context, h *lambdahost.Host, events [][]byte) (us float64, err error) {
	var before time.Duration
	if pids := h.PIDs(); len(pids) == 1 {
		if before, err = cpuTime(pids[0]); err != nil {
			return 0, err
		}
	}
	for _, e := range events {
		if _, err := invoke(ctx, h, e); err != nil {
			return 0, err
		}
	}
	pid, err := only(h)
	if err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	return float64((after - before).Microseconds()) / float64(len(events)), err
}

// atShare measures the first decision, and some after a rest, of a process that has a share of the CPU as soon as INIT is
// over.
func (b *bench) atShare(ctx context.Context, c contestant) error {
	h := c.host(b.issuer, b.issuer.near)
	defer h.Close()
	pid, err := b.startAtShare(ctx, h)
	if err != nil {
		return err
	}
	defer b.share.leave(pid) // before it ends, which is work that the next one would pay for
	took, err := invoke(ctx, h, b.eddsa[0])
	b.add(c, first, ms(took))
	for n := 0; err == nil && n < rests; n++ {
		time.Sleep(rest)
		took, err = invoke(ctx, h, b.eddsa[1+n])
		b.add(c, rested, ms(took))
	}
	return err
}

// startAtShare starts a process that has a share of the CPU as soon as INIT is over.
func (b *bench) startAtShare(ctx context.Context, h *lambdahost.Host) (pid int, err error) {
	if err := h.Start(ctx); err != nil {
		return 0, err
	}
	if pid, err = only(h); err != nil {
		return 0, err
	}
	return pid, b.share.add(pid)
}

// due measures a decision at a share of the CPU whose keys are due: it fetches them over TLS or, with a table, also reads it,
// takes the lease and writes the set.
func (b *bench) due(ctx context.Context, c contestant, measure, table string) error {
	c.env = append(slices.Clone(c.env), "JWKS_TTL=1s", "JWKS_MAX_STALE=1h", "JWKS_TABLE="+table, "AWS_ENDPOINT_URL_DYNAMODB="+b.issuer.table.endpoint,
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench")
	set, err := b.issuer.keySet()
	if err != nil {
		return err
	}
	b.issuer.table.holds(set)
	h := c.host(b.issuer, b.issuer.near)
	defer h.Close()
	pid, err := b.startAtShare(ctx, h)
	if err != nil {
		return err
	}
	defer b.share.leave(pid) // before it ends, which is work that the next one would pay for
	if _, err := invoke(ctx, h, b.eddsa[0]); err != nil {
		return err
	}
	time.Sleep(1100 * time.Millisecond)
	took, err := invoke(ctx, h, b.eddsa[1])
	if err == nil && table != "" && !b.issuer.table.leased() {
		err = errors.New("its keys were not due: nobody took the lease")
	}
	b.add(c, measure, ms(took))
	return err
}

// invoke is one decision, which must be to allow.
func invoke(ctx context.Context, h *lambdahost.Host, event []byte) (time.Duration, error) {
	began := time.Now()
	answer, refused, err := h.Invoke(ctx, event)
	took := time.Since(began)
	if err == nil && refused {
		err = fmt.Errorf("it refuses a good token: %s", answer)
	}
	return took, err
}

// only is the host's one process.
func only(h *lambdahost.Host) (int, error) {
	pids := h.PIDs()
	if len(pids) != 1 {
		return 0, fmt.Errorf("it runs in %d processes, which should be one", len(pids))
	}
	return pids[0], nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
