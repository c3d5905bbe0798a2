//go:build page

// Package page holds that the page of the Zuplo stand-in does what it says, in Chromium, seen as a person sees it. It runs
// beside the stack, whose addresses are in the environment: make test-page.
package page

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

var (
	front = os.Getenv("ZUPLO_URL")
	admin = os.Getenv("ADMIN_URL")
)

// A sight is what the page shows of a request.
type sight struct {
	Outcome  string   // the status with its symbol, and the sentence beside it
	Answered []string // the boxes that say that they answered
	Reached  []string // the boxes that are drawn solid
	Numbers  []string // on the ways that are drawn solid
	Hops     []string // the list of the ways taken: "Caller → Zuplo"
	Facts    map[string]string
	Texts    map[string]string
	Row      string // the request in the list that is marked as shown
}

func (b *browser) sight() sight {
	b.Helper()
	var s sight
	b.run(`
		const seen = css => [...document.querySelectorAll(css)].filter(e => e.checkVisibility({ opacityProperty: true, visibilityProperty: true })).map(e => e.innerText.trim());
		const pairs = (names, values) => { const v = seen(values); return Object.fromEntries(seen(names).map((name, i) => [name, v[i]])); };
		return {
			outcome: seen("#outcome").join(), answered: seen(".node.answers b"), reached: seen(".node:not(.not) b"), numbers: seen(".path i").sort(),
			hops: seen("#hops li:not(.no) b"), facts: pairs("#facts dt", "#facts dd"), texts: pairs("#texts h3", "#texts pre"),
			row: seen("#requests [aria-current]").join("|").replace(/\s+/g, " "),
		};`, &s)
	return s
}

// sends does what sends a request, waits for its answer, and returns what the page shows of it.
func (b *browser) sends(how func()) sight {
	b.Helper()
	b.run(`window.newest = document.querySelector("#requests li")`, nil)
	how()
	b.until(func() (bool, string) {
		var is bool
		b.run(`return document.querySelector("#requests li") !== window.newest && !document.getElementById("status").innerText.startsWith("Sent")`, &is)
		return is, "no answer shows; the page says " + b.text("#status")
	})
	return b.sight()
}

// send chooses a token and sends it.
func (b *browser) send(token string) sight {
	b.Helper()
	b.click(token)
	return b.sends(func() { b.click("Send") })
}

func (b *browser) again() sight {
	b.Helper()
	return b.sends(func() { b.click("The same token again") })
}

// environment takes a new environment of the authorizer, which knows no keys and has no fetch behind it.
func (b *browser) environment() {
	b.Helper()
	b.click("New environment")
	b.see("#status", "All environments have ended")
}

// holds checks what a sight holds: the outcome, and the boxes along the path as it went.
func (b *browser) holds(s sight, outcome, answered string, hops ...string) {
	b.Helper()
	if !strings.Contains(s.Outcome, outcome) || !slices.Equal(s.Answered, []string{answered}) || !slices.Equal(s.Hops, hops) {
		b.Errorf("the page shows %q, answered by %q, and the hops %q; want %q in it, %s and %q", s.Outcome, s.Answered, s.Hops, outcome, answered, hops)
	}
	ends := map[string]bool{}
	for _, h := range hops {
		from, to, _ := strings.Cut(h, " → ")
		ends[from], ends[to] = true, true
	}
	if len(s.Reached) != len(ends) || slices.ContainsFunc(s.Reached, func(box string) bool { return !ends[box] }) {
		b.Errorf("the boxes %q are drawn as reached, want the ends of %q", s.Reached, hops)
	}
	if len(strings.Fields(strings.Join(s.Numbers, " "))) != len(hops) {
		b.Errorf("the ways drawn have the numbers %q, want one for each of %q", s.Numbers, hops)
	}
	if symbol, _, _ := strings.Cut(outcome, " "); !strings.Contains(s.Row, symbol) || !strings.HasSuffix(s.Row, "shown") {
		b.Errorf("the list's row that is shown says %q, want %q in it, and shown", s.Row, symbol)
	}
}

const (
	callerZuplo, zuploGateway, callerGateway = "Caller → Zuplo", "Zuplo → API Gateway", "Caller → API Gateway"
	gatewayAuthorizer, authorizerIssuer      = "API Gateway → Authorizer", "Authorizer → Issuer"
	gatewayProtected                         = "API Gateway → Protected"
)

// get reads what the stack itself says, past the page.
func get(t *testing.T, url string, out any) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			t.Fatalf("%s: %v in %.400s", url, err, body)
		}
	}
}

type state struct {
	Issuer struct {
		Mode  string
		Modes []string
		Keys  []struct {
			Kid, Alg           string
			Published, Signing bool
		}
	}
	Authorizer struct{ Environments int }
	Gateway    struct{ Cached int }
}

func current(t *testing.T) (s state) {
	t.Helper()
	get(t, admin+"/state", &s)
	return s
}

// TestPage is one session of one person. Each part begins with an issuer that is ok and publishes the keys that sign, and one
// environment that has them in memory.
func TestPage(t *testing.T) {
	if front == "" {
		t.Fatal("no ZUPLO_URL: make test-page runs this beside the stack")
	}
	b := open(t, front+"/")
	for _, part := range []struct {
		name string
		test func(*browser)
	}{
		{"keyboard", keyboard}, {"tokens", tokens}, {"claims by hand", claims}, {"a token's text stays text", markup}, {"API Gateway's cache", cache},
		{"the issuer's modes", modes}, {"rotate", rotate}, {"withdraw", withdraw}, {"freeze", freeze}, {"the list", list}, {"400 px", narrow},
		{"contrast", contrast}, {"without colour", colourless}, {"the stack is gone", gone}, {"no request elsewhere", here},
	} {
		t.Run(part.name, func(t *testing.T) {
			b := &browser{t, b.session}
			b.begin()
			part.test(b)
		})
	}
	if file := os.Getenv("SHOT"); file != "" && !t.Failed() {
		shot(b, file)
	}
}

// begin puts the stack into the state that every part begins with, past the page, and opens the page anew.
func (b *browser) begin() {
	b.Helper()
	for _, order := range []string{"reset", "environment", "flush", "send"} {
		r, err := http.Post(admin+"/"+order, "application/json", strings.NewReader("{}"))
		if err != nil {
			b.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != http.StatusOK {
			b.Fatalf("%s is answered by %s", order, r.Status)
		}
	}
	b.screen(1200, 900, "light")
	b.call(http.MethodPost, "/url", map[string]string{"url": front + "/"}, nil)
	b.see("#modes", "garbage")
	b.see("#requests [aria-current]", "✓ 200")
}

func tokens(b *browser) {
	for _, c := range []struct {
		token, outcome, answered, fact string
		hops                           []string
	}{
		{"good", "✓ 200", "Protected", "allowed", []string{callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected}},
		{"forged", "✕ 401", "Authorizer", "refused: signature", []string{callerGateway, gatewayAuthorizer}},
		{"expired", "✕ 401", "Authorizer", "refused: expired", []string{callerGateway, gatewayAuthorizer}},
		{"wrong audience", "✕ 401", "Authorizer", "refused: audience", []string{callerGateway, gatewayAuthorizer}},
		{"slash in iss", "✕ 401", "Authorizer", "refused: issuer", []string{callerGateway, gatewayAuthorizer}},
		{"withdrawn key", "✕ 401", "Authorizer", "refused: unknown_key", []string{callerGateway, gatewayAuthorizer, authorizerIssuer}},
		{"unknown kid", "✕ 401", "Authorizer", "refused: unknown_key", []string{callerGateway, gatewayAuthorizer, authorizerIssuer}},
		{"none", "✕ 401", "API Gateway", "none: the authorizer was not asked", []string{callerGateway}},
	} {
		s := b.send(c.token)
		b.holds(s, c.outcome, c.answered, c.hops...)
		if s.Facts["Verdict"] != c.fact || s.Facts["Request"] != "GET /protected" || !strings.HasSuffix(s.Facts["Took"], " ms") {
			b.Errorf("%s: the facts are %v, want the verdict %q", c.token, s.Facts, c.fact)
		}
		if decided := strings.Contains(s.Texts["Decision, as the authorizer logged it"], `"msg":"decision"`); decided != (c.token != "none") {
			b.Errorf("%s: the texts are %v", c.token, s.Texts)
		}
		if policy := strings.Contains(s.Texts["Policy"], "execute-api:Invoke"); policy != (c.token == "good") {
			b.Errorf("%s: the texts are %v", c.token, s.Texts)
		}
		if s.Texts["Body, as the caller got it"] == "" || strings.Contains(s.Texts["The token's header and claims"], `"claims": {`) != (c.token != "none") {
			b.Errorf("%s: the texts are %v", c.token, s.Texts)
		}
	}
}

func claims(b *browser) {
	if b.text("#claims") != "" {
		b.Error("a field for claims shows beside a token that takes none")
	}
	b.click("claims by hand")
	b.write("claims", `{"sub": "alice", "aud": null}`)
	b.holds(b.sends(func() { b.click("Send") }), "✕ 401", "Authorizer", callerZuplo, zuploGateway, gatewayAuthorizer)
	b.write("claims", `{"sub": "alice"}`)
	if s := b.sends(func() { b.click("Send") }); !strings.Contains(s.Texts["Body, as the caller got it"], `"sub":"alice"`) {
		b.Errorf("the claims did not arrive: %+v", s)
	}
	for _, wrong := range []string{`{"sub": `, `["sub"]`, `null`} {
		b.write("claims", wrong)
		b.click("Send")
		b.see("#status", "Error: not sent: ")
		b.see("#claims-error", "not sent: ")
		var focused string
		if b.run(`return document.activeElement.id + document.activeElement.ariaInvalid`, &focused); focused != "claimstrue" {
			b.Errorf("with the claims %s the focus is on %s, not on the field that is wrong", wrong, focused)
		}
		b.write("claims", `{"sub": "bob"}`)
		b.sends(func() { b.click("Send") })
		if text := b.text("#claims-error"); text != "" {
			b.Errorf("good claims still have the error %q", text)
		}
	}
	b.write("target", "not a path")
	b.click("Send")
	b.see("#status", "Error: ")
	b.write("target", "/protected")
}

// markup: what a token holds is a stranger's text.
func markup(b *browser) {
	const tag = `<img src=x onerror=hit=1>`
	b.click("claims by hand")
	b.write("claims", `{"sub": "`+tag+`", "\u202eturned": "a\u202eb"}`)
	s := b.sends(func() { b.click("Send") })
	b.holds(s, "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected)
	if text := s.Texts["The token's header and claims"]; !strings.Contains(text, tag) || !strings.Contains(text, `"a\u{202e}b"`) {
		b.Errorf("the claims show as %s, want %s as it is and the character that turns text spelled out", text, tag)
	}
	if !strings.Contains(s.Texts["Body, as the caller got it"], "onerror=hit=1") {
		b.Errorf("the body shows as %s", s.Texts["Body, as the caller got it"])
	}
	b.click("none")
	b.write("target", "/"+strings.NewReplacer(" ", "%20", "<", "%3C", ">", "%3E").Replace(tag))
	b.sends(func() { b.click("Send") })
	b.write("target", "/protected")
	var made int
	if b.run(`return document.images.length + ("hit" in window ? 1 : 0)`, &made); made > 0 {
		b.Error("a claim became markup")
	}
}

func cache(b *browser) {
	b.click("Flush its cache")
	b.see("#status", "cache is empty")
	b.see("#cache", "0 policies in its cache")
	good := []string{callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected}
	b.holds(b.send("good"), "✓ 200", "Protected", good...)
	b.see("#cache", "1 policy in its cache, each for 5 min")
	s := b.again()
	b.holds(s, "cached policy", "Protected", callerGateway, gatewayProtected)
	if !strings.Contains(s.Row, "(cached policy)") || !strings.Contains(s.Facts["Policy"], "cached") || b.text(".node.not em") == "" {
		b.Errorf("a cached policy shows as %+v", s)
	}
	b.see(".node.not em", "not asked: policy cached")
	b.click("Flush its cache")
	b.see("#cache", "0 policies in its cache")
	if n := current(b.T).Gateway.Cached; n != 0 {
		b.Errorf("API Gateway holds %d policies", n)
	}
	b.holds(b.again(), "✓ 200", "Protected", callerGateway, gatewayAuthorizer, gatewayProtected)
}

func modes(b *browser) {
	set := func(mode string) {
		b.click(strings.ReplaceAll(mode, "_", " "))
		b.see("#status", "Issuer: "+strings.ReplaceAll(mode, "_", " ")+". ")
		b.see("#modes [aria-pressed=true]", strings.ReplaceAll(mode, "_", " "))
		if now := current(b.T).Issuer.Mode; now != mode || strings.Contains(b.text("#modes [aria-pressed=true]"), "\n") {
			b.Errorf("the issuer is %q, and pressed are %q, want %s", now, b.text("#modes [aria-pressed=true]"), mode)
		}
	}
	all := current(b.T).Issuer.Modes
	for _, mode := range []string{"ok", "503", "hang", "slow", "garbage"} {
		if !slices.Contains(all, mode) {
			b.Errorf("the issuer has the modes %q, and not %s", all, mode)
		}
	}
	for _, mode := range all {
		set(mode)
	}
	failed := []string{callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer}
	for _, mode := range []string{"503", "garbage", "hang"} {
		set(mode)
		b.holds(b.send("good"), "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected) // from memory
		b.environment()
		s := b.send("good")
		b.holds(s, "! 500", "Authorizer", failed...)
		if s.Facts["Verdict"] != "a fault" || !slices.Contains(s.Numbers, "✕") || !strings.Contains(b.text("#hops"), "✕") {
			b.Errorf("%s: a fetch that failed shows as %+v", mode, s)
		}
		b.see("#age", "No keys in memory")
		set("ok")
		b.environment()
		b.holds(b.send("good"), "✓ 200", "Protected", append(slices.Clone(failed), gatewayProtected)...)
	}
	b.write("delay", "1200")
	set("slow")
	b.environment()
	var took float64
	s := b.send("good")
	if fmt.Sscan(s.Facts["Took"], &took); took < 1200 {
		b.Errorf("with an issuer that is slow by 1,200 ms the request took %s", s.Facts["Took"])
	}
	b.holds(s, "✓ 200", "Protected", append(slices.Clone(failed), gatewayProtected)...)
	set("503")
	b.click("Issuer ok, signing keys published")
	b.see("#modes [aria-pressed=true]", "ok")
	b.see("#age", "fresh")
}

func rotate(b *browser) {
	for _, alg := range []string{"", "RS256"} {
		old := signing(b.T, alg)
		b.choose("algorithm", alg)
		b.click("Rotate")
		kid := old
		b.until(func() (bool, string) { kid = signing(b.T, alg); return kid != old, old + " still signs" })
		b.see("#status", fmt.Sprintf("Rotated: %s signs now, %s is still published.", kid, old))
		b.see("#kid", kid+", signs")
	}
	s := b.send("good")
	b.holds(s, "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer, gatewayProtected)
	if want := signing(b.T, ""); s.Facts["kid"] != want {
		b.Errorf("the token's kid is %s, want the new key's, %s", s.Facts["kid"], want)
	}
}

// signing is the kid that signs for an algorithm: for Zuplo's own where none is named.
func signing(t *testing.T, alg string) string {
	t.Helper()
	for _, k := range current(t).Issuer.Keys {
		if k.Signing && k.Alg == map[string]string{"": "EdDSA"}[alg]+alg {
			return k.Kid
		}
	}
	t.Fatalf("no key signs for %q", alg)
	return ""
}

func withdraw(b *browser) {
	kid := signing(b.T, "")
	published := func() bool {
		var set struct{ Keys []struct{ Kid string } }
		get(b.T, os.Getenv("ISSUER")+"/.well-known/jwks.json", &set)
		return slices.ContainsFunc(set.Keys, func(k struct{ Kid string }) bool { return k.Kid == kid })
	}
	b.choose("kid", kid)
	b.click("Withdraw")
	b.see("#status", "Withdrawn: the issuer publishes "+kid+" no longer")
	b.until(func() (bool, string) {
		_, withdrawn, _ := strings.Cut(b.text("#keys"), "withdrawn: ")
		return strings.Contains(withdrawn, kid), "withdrawn shows as " + withdrawn
	})
	b.see("#kid", kid+", signs, withdrawn")
	if published() {
		b.Errorf("the issuer still publishes %s", kid)
	}
	b.holds(b.send("good"), "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected) // from memory
	b.environment()
	b.holds(b.send("good"), "✕ 401", "Authorizer", callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer, authorizerIssuer) // at its start, and because of the kid
	b.click("Issuer ok, signing keys published")
	b.see("#status", "publishes the keys that sign")
	if _, withdrawn, _ := strings.Cut(b.text("#keys"), "withdrawn: "); !published() || strings.Contains(withdrawn, kid) {
		b.Errorf("%s is still withdrawn; the page says %q", kid, b.text("#keys"))
	}
	b.environment()
	b.holds(b.send("good"), "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer, gatewayProtected)
}

func freeze(b *browser) {
	b.see("#environments", "1 environment.")
	b.click("Freeze")
	b.see("#status", "Frozen: ")
	b.see("#environments", "set aside")
	fetches := []string{callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer, gatewayProtected}
	b.holds(b.send("good"), "✓ 200", "Protected", fetches...)
	b.see("#environments", "2 environments")
	b.click("Thaw")
	b.see("#status", "Thawed: ")
	b.see("#freeze", "Freeze")
	b.holds(b.send("good"), "✓ 200", "Protected", callerZuplo, zuploGateway, gatewayAuthorizer, gatewayProtected)
	b.environment()
	b.see("#environments", "0 environments")
	b.holds(b.send("good"), "✓ 200", "Protected", fetches...)
	b.see("#environments", "1 environment.")
	b.see("#age", " old: fresh. ")
	var needle bool
	if b.run(`return document.getElementById("needle").checkVisibility() && document.getElementById("bar").getAttribute("aria-valuetext").includes("fresh")`, &needle); !needle {
		b.Error("the bar shows no age")
	}
}

func list(b *browser) {
	b.send("expired")
	s := b.send("good")
	b.mouse(`(//ol[@id="requests"]//button)[2]`)
	b.see("#outcome", "✕ 401")
	b.see("#status", "Shown: 401")
	chosen := b.sight()
	if chosen.Facts["Verdict"] != "refused: expired" || !strings.Contains(chosen.Row, "✕ 401") || chosen.Row == s.Row {
		b.Errorf("the row that was clicked shows %+v", chosen)
	}
	get(b.T, front+"/protected", nil) // as curl would, without a key
	b.see("#requests li:first-child", "401")
	if now := b.sight(); now.Row != chosen.Row || now.Outcome != chosen.Outcome {
		b.Errorf("a request from elsewhere took the place of the one that was chosen: %+v", now)
	}
	b.mouse(`(//ol[@id="requests"]//button)[1]`)
	b.see(".node.answers b", "Zuplo")
	b.holds(b.sight(), "✕ 401", "Zuplo", callerZuplo)
}

// keyboard sends a request and takes a new environment, from the start of the page, with the keyboard alone.
func keyboard(b *browser) {
	focus := func() string {
		b.Helper()
		var on, faults string
		var seen []string
		b.run(`const e = document.activeElement, drawn = e.matches("[type=radio]") ? e.nextSibling : e, r = drawn.getBoundingClientRect(), style = getComputedStyle(drawn);
			const top = e.closest(".said, .skip") ? 0 : document.querySelector(".said").getBoundingClientRect().bottom;
			return [(e.value ?? e.id) + "|" + e.innerText, (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 ? "no sign of it " : "") + (r.bottom <= top || r.top >= innerHeight ? "out of sight" : "")]`, &seen)
		if on, faults = seen[0], seen[1]; faults != "" {
			b.Errorf("the focus is on %s: %s", on, faults)
		}
		return on
	}
	reach := func(want string) {
		b.Helper()
		for range 80 {
			if b.press(tab); strings.Contains(focus(), want) {
				return
			}
		}
		b.Fatalf("80 times Tab do not reach %s", want)
	}
	b.press(tab)
	if !strings.Contains(focus(), "To the path") {
		b.Errorf("the first stop is %s, want the link past the form", focus())
	}
	reach("good|")
	b.press(right, right)
	b.see("#token-hint", "its exp is past")
	reach("/protected|")
	b.holds(b.sends(func() { b.press(enter) }), "✕ 401", "Authorizer", callerGateway, gatewayAuthorizer)
	reach("|Send")
	b.holds(b.sends(func() { b.press(space) }), "✕ 401", "Authorizer", callerGateway, gatewayAuthorizer)
	reach("503|")
	b.press(space)
	b.see("#modes [aria-pressed=true]", "503")
	if !strings.HasPrefix(focus(), "503|") {
		b.Errorf("the focus went to %s when the button was pressed", focus())
	}
	reach("|Issuer ok")
	b.press(enter)
	b.see("#modes [aria-pressed=true]", "ok")
	reach("|New environment")
	b.press(enter)
	b.see("#status", "All environments have ended")
	reach("✕ 401")
	b.press(enter)
	b.see("#status", "Shown: 401")
}

// narrow: nothing is wider than a screen of 400 px, with the longest texts there are.
func narrow(b *browser) {
	b.screen(400, 800, "light")
	b.click("claims by hand")
	b.write("claims", `{"sub": "`+strings.Repeat("x", 300)+`"}`)
	b.sends(func() { b.click("Send") })
	b.holds(b.again(), "cached policy", "Protected", callerGateway, gatewayProtected)
	b.see("#texts", strings.Repeat("x", 30))
	width := func() {
		b.Helper()
		var wide []string
		b.run(`const wide = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.matches(".skip") && (e.getBoundingClientRect().right > 400 || e.getBoundingClientRect().left < 0 || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline" && !e.matches("select, input, label, .pills *")));
		return [...(document.documentElement.scrollWidth > 400 ? ["the page: " + document.documentElement.scrollWidth] : []), ...wide.map(e => e.tagName + "#" + e.id + "." + e.className + " " + e.innerText?.slice(0, 40))]`, &wide)
		if len(wide) > 0 {
			b.Errorf("wider than 400 px: %q", wide)
		}
	}
	width()
	b.write("target", "/"+strings.Repeat("y", 200))
	b.sends(func() { b.click("Send") })
	b.see("#hops", strings.Repeat("y", 30))
	width()
	b.click("path")
	b.until(func() (bool, string) {
		var top float64
		b.run(`return document.getElementById("view").getBoundingClientRect().top`, &top)
		return top >= 0 && top < 400, fmt.Sprintf("the path is at %v px from the top", top)
	})
	b.screen(1200, 900, "light")
}

// contrast: text against what it stands on, at least 4.5 to 1; the borders of what takes input 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11).
func contrast(b *browser) {
	b.send("expired")
	b.send("none")
	b.environment()
	b.click("503")
	b.see("#modes [aria-pressed=true]", "503")
	b.send("good")
	b.click("Issuer ok, signing keys published")
	b.see("#modes [aria-pressed=true]", "ok")
	b.environment()
	b.send("good")
	for _, scheme := range []string{"light", "dark"} {
		b.screen(1200, 900, scheme)
		var found struct {
			Paper float64
			Texts int
			Tones []string
			Poor  []string
		}
		b.run(contrastScript, &found)
		if dark := found.Paper < 0.1; dark != (scheme == "dark") {
			b.Errorf("%s: the paper's luminance is %.2f", scheme, found.Paper)
		}
		if found.Texts < 60 || len(found.Tones) < 4 {
			b.Errorf("%s: only %d texts were measured, of the tones %q", scheme, found.Texts, found.Tones)
		}
		for _, poor := range found.Poor {
			b.Errorf("%s: %s", scheme, poor)
		}
	}
	b.screen(1200, 900, "light")
}

const contrastScript = `
	const parse = c => { // rgb(), rgba() and color(srgb ...), as computed styles spell colours
		const n = c.match(/[\d.]+/g).map(Number);
		return c.startsWith("color") ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
	};
	const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
	const ground = e => e ? over(parse(getComputedStyle(e).backgroundColor), ground(e.parentElement)) : [255, 255, 255, 1];
	const luminance = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((x, y) => y - x); return (x + 0.05) / (y + 0.05); };
	const out = { paper: luminance(ground(document.body)), texts: 0, poor: [], tones: [...new Set([...document.querySelectorAll("#requests button")].map(e => e.className))] };
	const judge = (e, what, least, color, on) => { const r = ratio(over(parse(color), on), on); if (r < least) out.poor.push(what + " " + r.toFixed(2) + ": " + e.tagName + "#" + e.id + "." + e.className + " " + e.innerText); };
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility({ opacityProperty: true }) || e.matches(":disabled, script")) continue;
		const style = getComputedStyle(e);
		if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.matches("input, select, textarea")) {
			out.texts++;
			judge(e, "text", 4.5, style.color, ground(e));
		}
		if (e.matches("input, select, textarea, button:not(#requests *), .pills span, .bar")) judge(e, "border", 3, style.borderTopColor, ground(e.parentElement));
	}
	return out;`

// colourless: what a colour tells, a word or a sign tells, too.
func colourless(b *browser) {
	b.send("expired")
	for css, sign := range map[string]string{"#outcome": "✕ 401", ".node.answers em": "answered: 401", ".node.not em": "not reached", "#hops li.no": "not taken", "#requests li": "✕ 401"} {
		b.see(css, sign)
	}
	var signs []string
	b.run(`return [["#tokens input:checked + span", "::before"], ["#modes [aria-pressed=true]", "::before"]]
		.map(([css, part]) => getComputedStyle(document.querySelector(css), part).content)`, &signs)
	if want := []string{`"✓ "`, `"✓ "`}; !slices.Equal(signs, want) {
		b.Errorf("what is chosen is marked by %q, want %q", signs, want)
	}
}

// gone: the page says that the stack does not answer, and that it does again.
func gone(b *browser) {
	offline := func(is bool) {
		b.devtools("Network.emulateNetworkConditions", map[string]any{"offline": is, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
	}
	offline(true)
	b.see("#status", "Error: no answer; does make run still run?")
	offline(false)
	b.see("#status", "The stack answers again.")
}

// here: all that was requested in all of the session came from the page's own origin, and nothing was blocked or broke.
func here(b *browser) {
	type entry struct{ Level, Message string }
	var log, console []entry
	b.call(http.MethodPost, "/se/log", map[string]string{"type": "performance"}, &log)
	b.call(http.MethodPost, "/se/log", map[string]string{"type": "browser"}, &console)
	own := 0
	for _, e := range log {
		var m struct {
			Message struct {
				Method string
				Params struct{ Request struct{ URL string } }
			}
		}
		if err := json.Unmarshal([]byte(e.Message), &m); err != nil {
			b.Fatal(err)
		}
		url := m.Message.Params.Request.URL
		switch {
		case m.Message.Method != "Network.requestWillBeSent" || strings.HasPrefix(url, "data:"):
		case strings.HasPrefix(url, front+"/"):
			own++
		default:
			b.Errorf("the page asked %s", url)
		}
	}
	if own < 50 {
		b.Errorf("only %d requests of the page were heard", own)
	}
	for _, e := range console {
		// Chromium reports an answer of 400, which a path that is none gets, and that it is offline.
		if !strings.Contains(e.Message, "/__admin/send - Failed to load resource: the server responded with a status of 400") && !strings.Contains(e.Message, "net::ERR_INTERNET_DISCONNECTED") {
			b.Errorf("the browser's console says %s: %s", e.Level, e.Message)
		}
	}
}

// TestRules wants rules under which GET /orders/* asks for the scope orders:read, and keys that are due after 2 s and too old
// after 4 s.
func TestRules(t *testing.T) {
	b := open(t, front+"/")
	b.begin()
	b.see("#rules", "they name GET /protected · GET /orders/*.")
	b.click("good")
	b.write("target", "/orders/7")
	if s := b.sends(func() { b.click("Send") }); !strings.Contains(s.Outcome, "⊘ 403") || s.Facts["Verdict"] != "not permitted" || !slices.Equal(s.Answered, []string{"Authorizer"}) {
		b.Errorf("without the scope that the rule asks for the page shows %q, answered by %q", s.Outcome, s.Answered)
	}
	b.click("claims by hand")
	b.write("claims", `{"scope": "orders:read"}`)
	if s := b.sends(func() { b.click("Send") }); !strings.Contains(s.Outcome, "✓ 200") || s.Facts["Request"] != "GET /orders/7" {
		b.Errorf("with the scope that the rule asks for the page shows %q, for %s", s.Outcome, s.Facts["Request"])
	}
	b.click("503")
	b.see("#age", ": due. ")
	b.see("#age", ": too old. ")
	var at float64
	if b.run(`return parseFloat(document.getElementById("needle").style.left)`, &at); at < 80 {
		b.Errorf("keys that are too old stand at %v %% of the bar", at)
	}
	b.holds(b.sends(func() { b.click("Send") }), "! 500", "Authorizer", callerZuplo, zuploGateway, gatewayAuthorizer, authorizerIssuer)
}

// shot writes a picture of a request that failed because the issuer did.
func shot(b *browser, file string) {
	b.begin()
	b.screen(1100, 900, "light")
	b.send("slash in iss")
	b.send("none")
	b.send("good")
	b.again()
	b.environment()
	b.click("503")
	b.see("#modes [aria-pressed=true]", "503")
	b.send("good")
	b.run(`document.activeElement.blur(); scrollTo(0, 0)`, nil)
	var picture string
	b.call(http.MethodGet, "/screenshot", nil, &picture)
	png, err := base64.StdEncoding.DecodeString(picture)
	if err != nil {
		b.Fatal(err)
	}
	if len(png) > 200<<10 || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		b.Fatalf("%d bytes of picture, more than 200 KB, or no PNG", len(png))
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.Fatal(err)
	}
}
