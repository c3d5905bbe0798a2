//go:build page

package page

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take to show on the page. The longest is the authorizer's wait for an issuer that hangs.
const patience = 15 * time.Second

// A browser is a session of headless Chromium, driven as https://www.w3.org/TR/webdriver2/ says.
type browser struct {
	*testing.T
	session string // its URL
}

func open(t *testing.T, url string) *browser {
	t.Helper()
	driver := exec.Command("chromedriver", "--port=0")
	out, err := driver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{T: t}
	t.Cleanup(func() {
		if b.session != "" {
			b.call(http.MethodDelete, "", nil, nil)
		}
		driver.Process.Signal(syscall.SIGTERM) // it ends its browser, if that is left
		driver.Wait()
	})
	address := ""
	for lines, port := bufio.NewScanner(out), regexp.MustCompile(`started successfully on port (\d+)`); address == "" && lines.Scan(); {
		if m := port.FindStringSubmatch(lines.Text()); m != nil {
			address = "http://127.0.0.1:" + m[1] + "/session"
		}
	}
	if address == "" {
		t.Fatal("chromedriver named no port")
	}
	// Root has no sandbox, and a container's /dev/shm may be too small.
	chrome := map[string]any{"binary": "chromium", "args": []string{"--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"}}
	if path, err := exec.LookPath("chromium"); err == nil {
		chrome["binary"] = path
	}
	var made struct{ SessionID string }
	b.request(http.MethodPost, address, map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:chromeOptions": chrome, "goog:loggingPrefs": map[string]string{"performance": "ALL", "browser": "ALL"}}}}, &made)
	b.session = address + "/" + made.SessionID
	b.call(http.MethodPost, "/url", map[string]string{"url": url}, nil)
	return b
}

// call asks the session, and puts the answer's value into out unless that is nil.
func (b *browser) call(method, path string, body, out any) {
	b.Helper()
	b.request(method, b.session+path, body, out)
}

func (b *browser) request(method, url string, body, out any) {
	b.Helper()
	var sent bytes.Buffer
	if body != nil {
		json.NewEncoder(&sent).Encode(body)
	}
	r, err := http.NewRequest(method, url, &sent)
	if err != nil {
		b.Fatal(err)
	}
	response, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		b.Fatalf("%s %s: %v", method, url, err)
	}
	if response.StatusCode != http.StatusOK {
		b.Fatalf("%s %s: %.400s", method, url, answer.Value)
	}
	if out != nil {
		if err := json.Unmarshal(answer.Value, out); err != nil {
			b.Fatalf("%s %s: %v in %.400s", method, url, err, answer.Value)
		}
	}
}

// run runs a script, the body of a function, in the page.
func (b *browser) run(script string, out any, args ...any) {
	b.Helper()
	b.call(http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": append([]any{}, args...)}, out)
}

// devtools sends a command of Chromium's own: what the W3C's protocol has no word for.
func (b *browser) devtools(command string, params any) {
	b.Helper()
	b.call(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, nil)
}

// screen is the size of the window, and the colours that the system prefers: light or dark.
func (b *browser) screen(width, height int, scheme string) {
	b.Helper()
	b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": []any{
		map[string]string{"name": "prefers-color-scheme", "value": scheme}, map[string]string{"name": "prefers-reduced-motion", "value": "reduce"}}})
}

// click clicks, as a mouse would, on the button, choice or link that shows this text and no other.
func (b *browser) click(label string) {
	b.Helper()
	b.mouse(fmt.Sprintf(`//*[(self::button or self::label or self::a) and normalize-space()=%q]`, label))
}

func (b *browser) mouse(xpath string) {
	b.Helper()
	var found map[string]string
	b.call(http.MethodPost, "/element", map[string]string{"using": "xpath", "value": xpath}, &found)
	b.run(`arguments[0].scrollIntoView({block: "center"})`, nil, found)
	for _, id := range found {
		b.call(http.MethodPost, "/element/"+id+"/click", struct{}{}, nil)
	}
}

// choose picks an option of a select.
func (b *browser) choose(id, value string) {
	b.Helper()
	b.mouse(fmt.Sprintf(`//select[@id=%q]/option[@value=%q]`, id, value))
}

const (
	tab, enter, space, right = "\ue004", "\ue007", " ", "\ue014"
)

// press presses keys, one after the other, wherever the focus is.
func (b *browser) press(keys ...string) {
	b.Helper()
	var actions []any
	for _, k := range keys {
		actions = append(actions, map[string]string{"type": "keyDown", "value": k}, map[string]string{"type": "keyUp", "value": k})
	}
	b.call(http.MethodPost, "/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keys", "actions": actions}}}, nil)
}

// write replaces what stands in a field by text, key by key.
func (b *browser) write(id, text string) {
	b.Helper()
	b.run(`const e = document.getElementById(arguments[0]); e.scrollIntoView({block: "center"}); e.focus(); e.select()`, nil, id)
	b.press(strings.Split(text, "")...)
}

// text is what one sees of the elements that css selects, one a line: nothing, where they are hidden.
func (b *browser) text(css string) string {
	b.Helper()
	var text string
	b.run(`return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
		.map(e => e.innerText ?? "").join("\n")`, &text, css)
	return text
}

// see waits until the text that css selects holds want.
func (b *browser) see(css, want string) {
	b.Helper()
	b.until(func() (bool, string) {
		text := b.text(css)
		return strings.Contains(text, want), fmt.Sprintf("%s shows %q, want %q in it", css, text, want)
	})
}

// until asks again and again until it is true; otherwise says what is.
func (b *browser) until(ask func() (ok bool, otherwise string)) {
	b.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ok, otherwise := ask()
		if ok {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%s, for %v", otherwise, patience)
		}
	}
}
