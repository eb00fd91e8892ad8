package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-id/muster/internal/logtest"
)

// logIn asks the service for a session and returns the status and the answer.
func (s *server) logIn(user, password string) (int, string) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"checks": map[string]any{
		"user": map[string]string{"loginName": user}, "password": map[string]string{"password": password},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, s.url+"/v2/sessions", strings.NewReader(string(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+importToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// People who were imported log in at the service as it runs: one with a hash,
// which a shutdown right behind the answer sees hashed anew, and one whose
// password only the old system knows, which is asked once.
func TestPeopleWhoWereImportedLogIn(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked <- r.Header.Get("Authorization") + string(b)
		if !strings.Contains(string(b), `"password":"known there"`) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer old.Close()
	s := newServer(t)
	s.env = append(s.env, "MUSTER_VERIFY_PRIVATE=true", "MUSTER_LOCKOUT=2", "MUSTER_LOG_LEVEL=debug")
	s.start()
	file := filepath.Join(t.TempDir(), "people.ndjson")
	people := `{"userName":"hashed","profile":{"firstName":"A","lastName":"B"},"email":{"email":"a@example.test","isEmailVerified":true},"hashedPassword":{"value":"$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1"}}
{"userName":"elsewhere","profile":{"firstName":"A","lastName":"B"},"email":{"email":"b@example.test","isEmailVerified":true}}
`
	if err := os.WriteFile(file, []byte(people), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut logtest.Log
	err := run(context.Background(), []string{"import", file, "--server", s.url, "--token", importToken, "--job", "job-1",
		"--verify-url", old.URL + "/check", "--verify-authorization", "Bearer of-old"}, &out, &errOut)
	if err != nil || !strings.Contains(out.String(), "1  get in with their password through the old system") {
		t.Fatalf("%v\n%s\n%s", err, &out, &errOut)
	}
	if strings.Contains(out.String()+errOut.String(), "of-old") {
		t.Error("the command prints the authorization")
	}
	if status, b := s.logIn("elsewhere", "known there"); status != 200 {
		t.Fatalf("%d: %s", status, b)
	}
	if q := <-asked; !strings.HasPrefix(q, "Bearer of-old{") || !strings.Contains(q, `"loginName":"elsewhere"`) {
		t.Errorf("the old system was asked %s", q)
	}
	if status, b := s.logIn("hashed", "password"); status != 200 {
		t.Fatalf("%d: %s", status, b)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, s.out.String())
	}
	s.cmd = nil
	s.start()
	_, b := s.get("/management/v1/global/users/_by_login_name?loginName=hashed")
	var got struct {
		User struct{ Details struct{ Sequence string } }
	}
	// HumanAdded, EmailVerified, PasswordSet, PasswordChecked, PasswordRehashed
	if err := json.Unmarshal(b, &got); err != nil || got.User.Details.Sequence != "5" {
		t.Errorf("the shutdown did not wait for the rehash: %s", b)
	}
	for _, want := range []int{400, 400, 400} { // the third one is locked out by the second
		if status, b := s.logIn("elsewhere", "wrong"); status != want {
			t.Errorf("%d: %s", status, b)
		}
	}
	if status, b := s.logIn("elsewhere", "known there"); status != 400 || !strings.Contains(b, "MUSTER-active") {
		t.Errorf("MUSTER_LOCKOUT does not hold: %d: %s", status, b)
	}
	if len(asked) != 0 {
		t.Errorf("the old system was asked again: %d times", len(asked))
	}
	for _, secret := range []string{"known there", "of-old", old.URL} {
		if strings.Contains(s.out.String(), secret) {
			t.Errorf("%q is in the service's log", secret)
		}
	}
}
