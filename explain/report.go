package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"zuplo-lambda-authorizer/internal/apigw"
	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/keycache"
)

// A verdict is the authorizer's word for what becomes of a request.
type verdict string

const (
	allow  verdict = "allow"
	reject verdict = "reject"
	forbid verdict = "forbid"
	fault  verdict = "fault"
)

// A report is what explain found out.
type report struct {
	Verdict verdict    `json:"verdict"`
	Reason  jwt.Reason `json:"reason,omitempty"`
	Detail  jwt.Detail `json:"detail,omitempty"`
	Status  int        `json:"status"`         // what the caller sees, or would see if the backend answers 200
	Rule    *int       `json:"rule,omitempty"` // that refused the route, from 1; 0: none names it
	Checks  []check    `json:"checks"`         // in the authorizer's order
	Keys    []key      `json:"keys"`
	Routes  *routes    `json:"routes,omitempty"` // of the rules, for this token
	Meaning []string   `json:"meaning"`
	Notes   []string   `json:"notes"`
}

// A check is what one check of the authorizer says. Texts are safe to print.
type check struct {
	Check    string `json:"check"`
	OK       bool   `json:"ok"`
	Found    string `json:"found"`
	Expected string `json:"expected"`
	Hint     string `json:"hint"`
}

type key struct {
	Issuer     string   `json:"issuer"`
	KeyID      string   `json:"kid"`
	KeyType    string   `json:"kty"`
	Algorithms []string `json:"algorithms"`
	Skipped    string   `json:"skipped,omitempty"` // why it cannot be used
}

type routes struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

func (r *report) status() int {
	switch r.Verdict {
	case allow:
		return allowed
	case fault:
		return unknown
	}
	return refused
}

// failed notes a check that was not passed, by a rejection or a fault. The first one decides.
func (r *report) failed(c check, err error) {
	r.Checks = append(r.Checks, c)
	var rejection *jwt.Rejection
	switch {
	case r.Verdict != "":
	case errors.As(err, &rejection):
		r.Verdict, r.Reason, r.Detail = reject, rejection.Reason, rejection.Detail
	default:
		r.Verdict = fault
	}
}

// misconfigured is the report on variables with which the authorizer does not start.
func (r *report) misconfigured(err error) {
	r.Verdict, r.Status = fault, 500
	for line := range strings.SplitSeq(err.Error(), "\n") {
		name, why, _ := strings.Cut(line, ": ")
		r.Checks = append(r.Checks, check{Check: "settings", Found: name + ": " + show(why), Hint: "the authorizer does not start with this; docs/configuration.md has what each variable may be"})
	}
	r.Meaning = []string{"The authorizer does not start: every caller gets 500."}
}

// An explainer fills a report.
type explainer struct {
	*report
	config   config.Config
	order    order
	rules    string                    // as configured
	event    func(value string) []byte // in which API Gateway brings a header's value
	keys     map[string]config.KeySource
	watched  map[string]*watch // of the issuers that are fetched from, by name
	verifier jwt.Verifier
	now      time.Time
}

// newExplainer refuses flags that are wrong.
func newExplainer(c config.Config, rules string, o order, r *report) (e *explainer, err error) {
	e = &explainer{report: r, config: c, rules: rules, order: o, watched: map[string]*watch{}, now: time.Now()}
	if o.at != "" {
		if e.now, err = time.Parse(time.RFC3339, o.at); err != nil {
			return nil, errors.New("-at: not a time such as 2026-11-26T08:00:00Z")
		}
		r.Notes = append(r.Notes, "times are judged as of "+moment(e.now)+", the keys as of now")
	}
	if e.event, err = newEvent(o, c.Header); err != nil {
		return nil, err
	}
	if c.Table != nil || c.Unshared != nil {
		r.Notes = append(r.Notes, "the table of shared keys is not opened: keys come from the issuer, as they do for the authorizer without the table")
		e.config.Table, e.config.Unshared = nil, nil
	}
	client := issuer.NewClient(false)
	client.Transport = observer{client.Transport}
	e.keys = e.config.Keys(client, slog.New(noter{r}), slog.New(slog.DiscardHandler), time.Now)
	for name, source := range e.keys {
		if cache, ok := source.(*keycache.Cache); ok {
			w := &watch{Source: cache.Source}
			cache.Source, e.watched[name] = w, w
		}
	}
	if len(e.watched) > 0 {
		r.Notes = append(r.Notes, "keys are fetched from this machine, which may see another network than the function does")
	}
	e.verifier = e.config.Verifier(e.keys, func() time.Time { return e.now })
	return e, nil
}

// A noter is the authorizer's log: its warnings become notes. Keys that are skipped are in the list of keys.
type noter struct{ *report }

func (n noter) Enabled(context.Context, slog.Level) bool { return true }
func (n noter) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n noter) WithGroup(string) slog.Handler            { return n }
func (n noter) Handle(_ context.Context, line slog.Record) error {
	if line.Message != "key skipped" {
		n.Notes = append(n.Notes, show(line.Message))
	}
	return nil
}

// token judges the header's value as the authorizer does, goes on where that stops, and says what API Gateway would do.
func (e *explainer) token(ctx context.Context, value string) {
	request, err := apigw.Parse(e.event(value), e.config.Header)
	if err != nil { // newEvent has tried it with another token
		e.failed(check{Check: "event", Found: show(err.Error())}, err)
		e.conclude(request)
		return
	}
	found := e.verifier.Examine(ctx, request.Token)
	if first := found.Findings[0]; first.Err != nil {
		c, meant := e.form(value, first.Err)
		e.failed(c, first.Err)
		found.Findings = nil
		if again := e.verifier.Examine(ctx, meant); again.Findings[0].Err == nil { // it goes on with what was meant
			found, value = again, meant
			found.Findings = again.Findings[1:]
		}
	}
	t := e.read(value, found)
	if n := slices.IndexFunc(found.Findings, func(f jwt.Finding) bool { return f.Check == "iss" && f.Err != nil }); n >= 0 {
		if meant, ok := e.meant(t.named); ok { // it goes on with the keys and audiences that were meant
			t.issuer = meant
			v := e.verifier
			v.Issuers = map[string]jwt.Trusted{t.named: v.Issuers[meant.Name]}
			all := v.Examine(ctx, value).Findings
			all = all[slices.IndexFunc(all, func(f jwt.Finding) bool { return f.Check == found.Findings[0].Check }):]
			all[n].Err = found.Findings[n].Err
			found.Findings = all
		}
	}
	for _, f := range found.Findings {
		c := t.explain(f)
		if c.OK = f.Err == nil; c.OK {
			c.Expected = ""
			e.Checks = append(e.Checks, c)
		} else {
			e.failed(c, f.Err)
		}
	}
	e.list(t.issuer)
	if e.Verdict == "" {
		e.answer(request, &found.Token)
	}
	e.conclude(request)
}

// meant is the issuer from which an iss differs by a slash or by capitals alone.
func (e *explainer) meant(iss string) (config.Issuer, bool) {
	for _, i := range e.config.Issuers {
		if strings.EqualFold(strings.TrimSuffix(i.Name, "/"), strings.TrimSuffix(iss, "/")) {
			return i, true
		}
	}
	return config.Issuer{}, false
}

// answer asks the rules about a verified token.
func (e *explainer) answer(request apigw.Request, token *jwt.Token) {
	_, d, err := e.config.Allow(request, token)
	if err != nil {
		e.failed(check{Check: "answer", Found: show(err.Error())}, err)
		return
	}
	if e.config.Rules == nil {
		return
	}
	e.Routes = &routes{slices.Compact(slices.Sorted(slices.Values(d.Allow))), slices.Compact(slices.Sorted(slices.Values(d.Deny)))}
	route, none := e.order.route, e.order.route == "" && request.Kind != apigw.WebSocket
	if request.Kind == apigw.WebSocket {
		route = "$connect"
	}
	c := check{Check: "rules", OK: !d.Refused, Found: "every rule that names " + show(route) + " is met"}
	switch {
	case none && len(d.Allow) > 0:
		c.OK, c.Found = true, fmt.Sprintf("%d of the rules' routes are open to this token", len(e.Routes.Allow))
		c.Hint = "with -route 'GET /path' the rules decide about that route"
	case none:
		c.Found, c.Expected, c.Hint = "no rule is met", "at least one", "every route is refused to this token"
	case d.Refused && d.Rule == 0:
		c.Found, c.Expected = "no rule names "+show(route), "a rule that does, for the API "+show(e.order.api)
		c.Hint = "methods and paths must match exactly, case included; /orders/* does not name /orders"
	case d.Refused:
		asked, has := e.asks(d.Rule, token)
		c.Found, c.Expected = "rule "+fmt.Sprint(d.Rule)+" is not met; the token has "+has, asked
		c.Hint = "values and their types must match exactly: 1 is not \"1\""
	}
	if !c.OK && e.config.RulesLog {
		c.OK, c.Hint = true, "RULES_MODE=log: it is allowed all the same, and the log says would_forbid"
	}
	e.Checks = append(e.Checks, c)
	if c.OK {
		return
	}
	if e.Verdict = forbid; !none {
		e.Rule = &d.Rule
	}
}

// asks says what a rule asks for, and what of that the token has.
func (e *explainer) asks(rule int, token *jwt.Token) (asked, has string) {
	var all []struct {
		Scopes json.RawMessage            `json:"scopes"`
		Claims map[string]json.RawMessage `json:"claims"`
	}
	_ = json.Unmarshal([]byte(e.rules), &all) // it was compiled
	r := all[rule-1]
	var parts, claims []string
	if r.Scopes != nil {
		parts = append(parts, "scopes "+show(string(r.Scopes)))
		claims = append(claims, "scope", "scp")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
		parts = append(parts, show(name)+" one of "+show(string(r.Claims[name])))
		claims = append(claims, strings.SplitN(strings.TrimPrefix(name, "/"), "/", 2)[0])
	}
	var values []string
	for _, name := range claims {
		if v := token.Claims.Find(name); v != nil {
			values = append(values, show(name)+" "+show(string(v)))
		} else {
			values = append(values, "no "+show(name))
		}
	}
	return strings.Join(parts, ", "), strings.Join(values, ", ")
}

// conclude says what the authorizer's verdict means.
func (e *explainer) conclude(request apigw.Request) {
	kept := "API Gateway keeps this answer for the token for ReauthorizeEvery (300 s by default), for every route."
	asked := "API Gateway keeps no errors: it asks again at the next request."
	if request.Kind == apigw.WebSocket {
		kept, asked = "It is asked for at $connect alone, and counts until the connection ends.", "The connection is refused; the next one is asked about anew."
	}
	switch e.Verdict {
	case reject:
		switch answer, _ := e.config.Reject(request, e.Reason); {
		case answer != nil:
			e.Status, e.Meaning = 403, []string{"The authorizer answers with a policy that denies everything; the caller sees 403.", kept}
		case request.Kind.API() == "http":
			e.Status, e.Meaning = 401, []string{"The authorizer answers with the error Unauthorized; the caller sees 401, or 500: sources disagree, and it was not tried on AWS.", asked}
		default:
			e.Status, e.Meaning = 401, []string{"The authorizer answers with the error Unauthorized; the caller sees 401.", asked}
		}
	case forbid:
		e.Status, e.Meaning = 403, []string{"The authorizer answers with a policy that denies this route; the caller sees 403.", kept}
	case fault:
		e.Status, e.Meaning = 500, []string{"The authorizer answers with an error; the caller sees 500.", asked}
	default:
		e.Verdict, e.Status = allow, 200
		e.Meaning = []string{"The authorizer answers with a policy; the caller sees what the backend replies.", kept}
		if e.config.PolicyExpiry && request.Kind != apigw.WebSocket {
			e.Meaning = append(e.Meaning, "The policy ends with the token, plus LEEWAY.")
		}
	}
}

// entries are an issuer's keys, as far as they are known.
func (e *explainer) entries(i config.Issuer) (usable []jwks.Usable, skipped []jwks.Skipped) {
	if i.Pinned != nil {
		return i.Pinned.Usable(), i.Skipped
	}
	s := e.watched[i.Name].search()
	return s.usable, s.skipped
}

// list notes an issuer's keys.
func (e *explainer) list(i config.Issuer) {
	usable, skipped := e.entries(i)
	for _, k := range usable {
		e.Keys = append(e.Keys, key{show(i.Name), show(k.KeyID), show(k.KeyType), k.Algorithms, ""})
	}
	for _, k := range skipped {
		e.Keys = append(e.Keys, key{show(i.Name), show(k.KeyID), show(k.KeyType), []string{}, show(k.Why)})
	}
}
