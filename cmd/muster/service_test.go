package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-id/muster/internal/logtest"
)

// service is `make run`, as a person starts it, on a data folder of the test's.
type service struct {
	t       *testing.T
	dir     string // the data folder
	address string
	cmd     *exec.Cmd
	out     *logtest.Log
	ended   chan struct{}
}

// newService prepares a service that has not been started.
func newService(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Below a folder that PostgreSQL's unprivileged user can pass through.
	dir, err := os.MkdirTemp("", "muster-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, dir: filepath.Join(dir, "data"), address: l.Addr().String()}
	t.Cleanup(func() {
		s.kill()
		// An orphaned server notices its service's death by itself.
		for range 100 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%s cannot be removed", dir)
	})
	return s
}

func (s *service) env() []string {
	env := []string{"MUSTER_DATA_DIR=" + s.dir, "MUSTER_LISTEN=" + s.address}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MUSTER_") && !strings.HasPrefix(e, "DATABASE_URL=") && !strings.HasPrefix(e, "MAKE") {
			env = append(env, e)
		}
	}
	return env
}

// start runs `make run` in a process group of its own and waits until it
// listens.
func (s *service) start() {
	s.t.Helper()
	s.out = &logtest.Log{}
	s.ended = make(chan struct{})
	s.cmd = exec.Command("make", "run")
	s.cmd.Dir = filepath.Join("..", "..")
	s.cmd.Env = s.env()
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.ended) }()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + s.address + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK && strings.Contains(s.out.String(), "muster listens on") {
				return
			}
		}
		select {
		case <-s.ended:
			s.t.Fatalf("make run has ended:\n%s", s.out)
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("make run does not get ready:\n%s", s.out)
		}
	}
}

// kill ends the whole group with -9.
func (s *service) kill() {
	if s.cmd != nil {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
		s.cmd = nil
	}
}

func (s *service) token() string {
	raw, err := os.ReadFile(filepath.Join(s.dir, "admin.token"))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

// call makes a request and returns the status and the decoded answer.
func (s *service) call(token, method, path, body string) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+s.address+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		return resp.StatusCode, nil, fmt.Errorf("%w: %s", err, raw)
	}
	return resp.StatusCode, answer, nil
}

// muster runs a command beside the service and returns what it prints.
func (s *service) muster(wantCode int, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join("..", "..", "bin", "muster"), args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	code := 0
	if err != nil {
		code = cmd.ProcessState.ExitCode()
	}
	if code != wantCode {
		s.t.Fatalf("muster %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, wantCode, out)
	}
	return string(out)
}

func person(name string) string {
	return fmt.Sprintf(`{"userName":%q,"profile":{"firstName":"Minnie","lastName":"Mouse"},"email":{"email":"%s@example.com","isEmailVerified":true},
		"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}}`, name, name)
}

// TestKillInTheMiddle starts `make run`, kills service and PostgreSQL's parent
// with -9 while 200 imports are under way, starts it again, and finds everyone
// who was acknowledged.
func TestKillInTheMiddle(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	token := s.token()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		acked = map[string]string{} // user id by name
	)
	half := make(chan struct{})
	for worker := range 8 {
		wg.Go(func() {
			for i := range 25 {
				name := fmt.Sprintf("mouse-%d-%d", worker, i)
				status, answer, err := s.call(token, "POST", "/management/v1/users/human/_import", person(name))
				if err != nil || status != http.StatusOK {
					return // the kill
				}
				mu.Lock()
				acked[name] = answer["userId"].(string)
				if len(acked) == 100 {
					close(half)
				}
				mu.Unlock()
			}
		})
	}
	<-half
	s.kill()
	wg.Wait()
	if len(acked) >= 200 {
		t.Fatal("the kill came too late to prove anything")
	}

	s.start()
	for name, id := range acked {
		status, answer, err := s.call(token, "GET", "/management/v1/users/"+id, "")
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s was acknowledged and is gone: %d %v %v", name, status, answer, err)
		}
		if got := answer["user"].(map[string]any)["userName"]; got != name {
			t.Errorf("%s came back as %v", name, got)
		}
	}
	// Nobody is there twice, and what was not acknowledged is whole or absent.
	out := s.muster(0, "verify")
	if !strings.Contains(out, " 0 findings") || !strings.Contains(out, "read model users, version 1") {
		t.Errorf("verify: %s", out)
	}
	status, answer, err := s.call(token, "POST", "/management/v1/users/human/_import", person("MOUSE-0-0"))
	if status != http.StatusConflict {
		t.Errorf("a taken name: %d %v %v", status, answer, err)
	}
}

// documentation is the example request of the endpoint's documentation page.
const documentation = `{
  "userName": "minnie-mouse",
  "profile": {"firstName": "Minnie", "lastName": "Mouse", "nickName": "Mini", "displayName": "Minnie Mouse", "preferredLanguage": "en", "gender": "GENDER_FEMALE"},
  "email": {"email": "minnie@mouse.com", "isEmailVerified": true},
  "phone": {"phone": "+41 71 000 00 00", "isPhoneVerified": true},
  "password": "string",
  "hashedPassword": {"value": "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"},
  "passwordChangeRequired": true,
  "requestPasswordlessRegistration": true,
  "otpCode": "string",
  "idps": [{"configId": "idp-config-id", "externalUserId": "idp-config-id", "displayName": "minnie.mouse@gmail.com"}]
}`

// TestService walks through what a newcomer does: run, import, read, search,
// look at events, rebuild, and stop with Ctrl-C.
func TestService(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	token := s.token()

	greeting := s.out.String()
	for _, want := range []string{"http://localhost:" + s.address[strings.LastIndex(s.address, ":")+1:], "admin.token", "curl -sS", "mails are written to"} {
		if !strings.Contains(greeting, want) {
			t.Errorf("the greeting lacks %q:\n%s", want, greeting)
		}
	}
	if st, err := os.Stat(filepath.Join(s.dir, "admin.token")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the admin token's file: %v %v", st.Mode(), err)
	}
	// The curl of the greeting, as it stands.
	paste := regexp.MustCompile(`(?s)curl -sS .*?\n\n`).FindString(greeting)
	out, err := exec.Command("sh", "-c", paste).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"userId"`) {
		t.Fatalf("the curl of the greeting: %v\n%s\n%s", err, paste, out)
	}

	status, answer, err := s.call(token, "POST", "/management/v1/users/human/_import", documentation)
	if err != nil || status != http.StatusOK {
		t.Fatal(status, answer, err)
	}
	id, details := answer["userId"].(string), answer["details"].(map[string]any)
	if details["sequence"] != "7" || details["creationDate"] == nil || details["changeDate"] != details["creationDate"] || details["resourceOwner"] == nil {
		t.Errorf("details: %v", details)
	}
	link := answer["passwordlessRegistration"].(map[string]any)
	if l := link["link"].(string); !strings.HasPrefix(l, "http://"+s.address+"/ui/login/login/passwordless/init?userID="+id+"&orgID=") || link["lifetime"] != "3600s" {
		t.Errorf("link: %v", link)
	}
	status, answer, err = s.call(token, "GET", "/management/v1/users/"+id, "")
	if err != nil || status != http.StatusOK || answer["user"].(map[string]any)["userName"] != "minnie-mouse" {
		t.Errorf("by id: %d %v %v", status, answer, err)
	}

	events := s.muster(0, "events", "--stream", id)
	var types []string
	for _, m := range regexp.MustCompile(`(?m)/\d+  (\w+)  `).FindAllStringSubmatch(events, -1) {
		types = append(types, m[1])
	}
	if got := strings.Join(types, " "); got != "HumanAdded EmailVerified PhoneVerified PasswordSet TOTPAdded IDPLinked PasskeyRegistrationRequested" {
		t.Errorf("events: %s", got)
	}
	if strings.Contains(events, "Minnie") || strings.Contains(events, "hXUrnqdq") {
		t.Errorf("sealed fields are shown:\n%s", events)
	}
	s.muster(1, "events", "--unseal")
	if shown := s.muster(0, "events", "--stream", id, "--unseal", "--reason", "a test"); !strings.Contains(shown, "Minnie") {
		t.Errorf("--unseal does not show:\n%s", shown)
	}
	if trace := s.muster(0, "events", "--type", "PersonalDataRead"); strings.Count(trace, "PersonalDataRead") != 1 {
		t.Errorf("--unseal leaves no trace:\n%s", trace)
	}

	// Somebody without a password gets a mail, as a file; Minnie got none.
	status, answer, err = s.call(token, "POST", "/management/v1/users/human/_import",
		`{"userName":"daisy","profile":{"firstName":"Daisy","lastName":"Duck"},"email":{"email":"daisy@example.com"}}`)
	if err != nil || status != http.StatusOK {
		t.Fatal(status, answer, err)
	}
	mails := filepath.Join(s.dir, "mail", "*.eml")
	var found []string
	for deadline := time.Now().Add(20 * time.Second); len(found) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		found, _ = filepath.Glob(mails)
	}
	if len(found) != 1 {
		t.Fatalf("%d mails", len(found))
	}
	if mail, err := os.ReadFile(found[0]); err != nil || !bytes.Contains(mail, []byte("daisy@example.com")) {
		t.Errorf("the mail: %v\n%s", err, mail)
	}

	if out := s.muster(0, "rebuild", "users"); !strings.Contains(out, "users: version 2 is live") {
		t.Errorf("rebuild: %s", out)
	}
	status, answer, err = s.call(token, "POST", "/management/v1/users/_search", `{"queries":[{"userNameQuery":{"userName":"daisy"}}]}`)
	if err != nil || status != http.StatusOK || len(answer["result"].([]any)) != 1 {
		t.Errorf("search: %d %v %v", status, answer, err)
	}
	if out := s.muster(0, "keys", "rotate"); !strings.Contains(out, "k2 is the primary now") {
		t.Errorf("rotate: %s", out)
	}
	status, answer, err = s.call(token, "GET", "/management/v1/users/"+id, "")
	if err != nil || status != http.StatusOK {
		t.Errorf("after the rotation: %d %v %v", status, answer, err)
	}
	if out := s.muster(0, "verify"); !strings.Contains(out, ": 0 findings") {
		t.Errorf("verify: %s", out)
	}

	// A token of another organisation sees nobody here.
	org := strings.TrimSpace(s.muster(0, "org", "create", "Elsewhere"))
	lines := strings.Split(strings.TrimSpace(s.muster(0, "token", "create", "--org", org, "--role", "ORG_OWNER")), "\n")
	theirs := lines[len(lines)-1]
	if status, answer, err = s.call(theirs, "GET", "/management/v1/users/"+id, ""); status != http.StatusNotFound {
		t.Errorf("another organisation's token: %d %v %v", status, answer, err)
	}

	// A second start on the same folder says what is the matter.
	cmd := exec.Command(filepath.Join("..", "..", "bin", "muster"), "serve", "--listen", "127.0.0.1:0")
	cmd.Env = s.env()
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "in use by another muster") {
		t.Errorf("a second start: %v\n%s", err, out)
	}

	// Ctrl-C goes to the whole group, as from a terminal.
	began := time.Now()
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("Ctrl-C does not end it")
	}
	s.cmd = nil
	t.Logf("Ctrl-C took %v", time.Since(began))
	if _, err := os.Stat(filepath.Join(s.dir, "postgres", "postmaster.pid")); !os.IsNotExist(err) {
		t.Errorf("PostgreSQL has not been stopped in order: %v", err)
	}
	if strings.Contains(s.out.String(), "level=ERROR") || strings.Contains(s.out.String(), "panic") {
		t.Errorf("something went wrong:\n%s", s.out)
	}
}

// TestMissingKeys refuses to start with new keys beside old events.
func TestMissingKeys(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	s.kill()
	keys := filepath.Join(s.dir, "keys.json")
	if err := os.Rename(keys, keys+".away"); err != nil {
		t.Fatal(err)
	}
	if out := s.muster(1, "serve"); !strings.Contains(out, "put it back") {
		t.Errorf("%s", out)
	}
	if _, err := os.Stat(keys); err == nil {
		t.Error("new keys were made")
	}
}
