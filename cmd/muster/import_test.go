package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/chaos"
	"github.com/muster-id/muster/internal/cluster"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/pgtest"
)

// TestMain lets the test's own binary be muster, so that it can be killed.
func TestMain(m *testing.M) {
	cluster.Child()
	chaos.Child()
	if os.Getenv("MUSTER_TEST_BE_MUSTER") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const importToken = "the-import's-token"

// server is `muster serve` in a process of its own on a database of the test's.
type server struct {
	t   *testing.T
	url string
	env []string
	cmd *exec.Cmd
	out logtest.Log
	// http is what start asks with; nil is the default client.
	http *http.Client
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &server{t: t, url: "http://" + l.Addr().String()}
	s.env = append(os.Environ(), "MUSTER_TEST_BE_MUSTER=1", "DATABASE_URL="+pgtest.New(t), "MUSTER_DATA_DIR="+t.TempDir(),
		"MUSTER_LISTEN="+l.Addr().String(), "MUSTER_ADMIN_TOKEN="+importToken, "MUSTER_ORG_ID=org-1", "MUSTER_GRACE=5s")
	t.Cleanup(s.kill)
	return s
}

// database is the URL of the server's database.
func (s *server) database() string {
	for _, e := range s.env {
		if url, ok := strings.CutPrefix(e, "DATABASE_URL="); ok && strings.Contains(url, "postgres") {
			return url
		}
	}
	return ""
}

func (s *server) start() {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(exe, "serve")
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.env, &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := cmp.Or(s.http, http.DefaultClient)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if res, err := client.Get(s.url + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	s.t.Fatalf("the service does not get ready:\n%s", s.out.String())
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) get(path string) (int, []byte) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+importToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, b
}

// lines is how many lines of a job have their answers.
func (s *server) lines(job string) int {
	_, b := s.get("/v1/imports/" + job)
	var got struct {
		Import struct{ Lines int } `json:"import"`
	}
	_ = json.Unmarshal(b, &got)
	return got.Import.Lines
}

func fromEnv(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// crowd writes a file of n users; every second one brings its own id.
func crowd(t *testing.T, n int) string {
	t.Helper()
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		id := ""
		if i%2 == 0 {
			id = fmt.Sprintf(`"userId":"own-%d",`, i)
		}
		fmt.Fprintf(&b, `{%s"userName":"user-%d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"user-%d@example.test","isEmailVerified":true},"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"},"idps":[{"configId":"google","externalUserId":"g-%d"}]}`+"\n", id, i, i, i)
	}
	file := filepath.Join(t.TempDir(), "crowd.ndjson")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// exactly checks that the log holds n users, each made once and whole.
func (s *server) exactly(n int) {
	s.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.database())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(ctx)
	var added, streams, events, claims int
	if err := conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE type = 'HumanAdded'), count(DISTINCT stream), count(*),
		(SELECT count(*) FROM claims) FROM events WHERE left(stream, 1) <> '$'`).Scan(&added, &streams, &events, &claims); err != nil {
		s.t.Fatal(err)
	}
	if added != n || streams != n || events != 4*n || claims != 2*n {
		s.t.Errorf("%d users in %d streams with %d events and %d claims; want %d, %d, %d", added, streams, events, claims, n, 4*n, 2*n)
	}
}

// TestImportSurvivesKills kills the service at random points of an import, and
// goes on: each user is there exactly once, and each line has one answer.
// MUSTER_TEST_IMPORT_LINES and MUSTER_TEST_IMPORT_KILLS make it larger.
func TestImportSurvivesKills(t *testing.T) {
	n, kills := fromEnv("MUSTER_TEST_IMPORT_LINES", 20_000), fromEnv("MUSTER_TEST_IMPORT_KILLS", 3)
	file := crowd(t, n)

	// killAt kills the service when a job has come so far, and starts it again.
	killAt := func(t *testing.T, s *server, job string, done <-chan struct{}) {
		for k := 1; k <= kills; k++ {
			at := (k-1)*n/kills + rand.IntN(n/kills/2)
			for s.lines(job) < at {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			s.kill()
			t.Logf("killed at line %d or later", at)
			s.start()
		}
	}

	t.Run("the command resumes by itself", func(t *testing.T) {
		s := newServer(t)
		s.start()
		report := filepath.Join(t.TempDir(), "report")
		done := make(chan struct{})
		var out, errOut logtest.Log
		var err error
		go func() {
			defer close(done)
			err = run(context.Background(), []string{"import", file, "--server", s.url, "--token", importToken, "--job", "job-1", "--report", report}, &out, &errOut)
		}()
		killAt(t, s, "job-1", done)
		<-done
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, &out, &errOut)
		}
		s.exactly(n)
		raw, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		next := int64(1)
		for line := range bytes.Lines(raw) {
			var a struct {
				Line    int64
				Row     int64
				Outcome string
			}
			if err := json.Unmarshal(line, &a); err != nil || a.Line != next || a.Row != next || a.Outcome != "created" {
				t.Fatalf("report: line %d: %v %s", next, err, line)
			}
			next++
		}
		if next != int64(n)+1 {
			t.Errorf("the report has %d lines", next-1)
		}
	})

	t.Run("the call is repeated", func(t *testing.T) {
		s := newServer(t)
		s.start()
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		call := func() ([]byte, error) {
			req, err := http.NewRequest(http.MethodPost, s.url+"/management/v1/users/human/_import?jobId=job-2", bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Authorization", "Bearer "+importToken)
			req.Header.Set("Content-Type", "application/x-ndjson")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return nil, err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err == nil && !bytes.Contains(b, []byte(`"summary"`)) {
				err = errors.New("no summary")
			}
			return b, err
		}
		done := make(chan struct{})
		var first, answers []byte
		go func() {
			defer close(done)
			for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				b, err := call()
				if err == nil {
					answers = b
					return
				}
				if len(b) > len(first) {
					first = b
				}
			}
		}()
		killAt(t, s, "job-2", done)
		<-done
		s.exactly(n)
		if got := bytes.Count(answers, []byte(`"outcome":"created"`)); got != n {
			t.Fatalf("%d of %d lines were answered with created", got, n)
		}
		// What a broken call had been told is what the last one says.
		first = first[:bytes.LastIndexByte(first, '\n')+1]
		if len(first) == 0 || !bytes.HasPrefix(answers, first) {
			t.Errorf("the first %d bytes of answers differ from those of an earlier call", len(first))
		}
	})
}

// TestImportCommand drives the command as a person does: another system's file,
// a dry run first, then the real one, with a report and an exit code.
func TestImportCommand(t *testing.T) {
	s := newServer(t)
	s.start()
	dir := t.TempDir()
	file := filepath.Join(dir, "users.json")
	// Firebase's own sample parameters, of an invented project.
	users := `{"users":[
{"localId":"fb1","email":"cy@example.test","emailVerified":true,"passwordHash":"ROuR/OQf3pmx0AZ4KHrEqs9JoEuMr6wnHeHhYnZPPzzfvrqHOanFPBROLf+DaAIFHHMcdEazM88GPUDNX7jW5g==","salt":"ZmJzYWx0MA==","displayName":"Cy Ro","createdAt":"1710237600000","disabled":false,"providerUserInfo":[]},
{"localId":"fb2","email":"not an address","emailVerified":true,"displayName":"Bad Row","providerUserInfo":[]},
{"localId":"fb3","email":"di@example.test","emailVerified":true,"displayName":"Di Na","photoUrl":"https://canary.test/x","providerUserInfo":[{"providerId":"google.com","rawId":"g3"}]}]}`
	config := "hash_config {\n  algorithm: SCRYPT,\n  base64_signer_key: c3ludGhldGljLXNpZ25lcnN5bnRoZXRpYy1zaWduZXJzeW50aGV0aWMtc2lnbmVyc3ludGhldGljLXNpZ25lcg==,\n  base64_salt_separator: Bw==,\n  rounds: 8,\n  mem_cost: 14,\n}\n"
	for name, text := range map[string]string{file: users, filepath.Join(dir, "fb"): config} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reports := map[bool][]byte{}
	for _, dry := range []bool{true, false} {
		var out, errOut logtest.Log
		name := filepath.Join(dir, fmt.Sprint("report", dry))
		args := []string{"import", file, "--server", s.url, "--token", importToken, "--firebase-config", filepath.Join(dir, "fb"), "--report", name, "--map", "idp:google.com=google"}
		if dry {
			args = append(args, "--dry-run")
		}
		err := run(context.Background(), args, &out, &errOut)
		if code := exitError(0); !errors.As(err, &code) || code != 3 {
			t.Fatalf("%v\n%s\n%s", err, &out, &errOut)
		}
		for _, part := range []string{"firebase users", "1 failed", "1  get in with their password", "1  get in by a provider", "hashes: firebase-scrypt", "field: photoUrl"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("dry run %v: %q is not said:\n%s", dry, part, &out)
			}
		}
		raw, err := os.ReadFile(name)
		if err != nil || strings.Contains(string(raw)+out.String()+errOut.String(), "canary") || strings.Contains(string(raw), "c3ludGhl") {
			t.Errorf("report: %v\n%s", err, raw)
		}
		reports[dry] = raw
	}
	for _, raw := range reports {
		var lines []string
		for line := range strings.Lines(string(raw)) {
			var a struct {
				Row     int
				Outcome string
				Field   string
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprint(a.Row, a.Outcome, a.Field))
		}
		if got := strings.Join(lines, " "); got != "1created 2failedemail.email 3created" {
			t.Errorf("the report says %s", got)
		}
	}

	// An interrupted import says how to go on, and goes on.
	big := crowd(t, 6000)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for s.lines("mine") < 100 {
			time.Sleep(2 * time.Millisecond)
		}
		cancel()
	}()
	var out, errOut logtest.Log
	err := run(ctx, []string{"import", big, "--server", s.url, "--token", importToken, "--job", "mine"}, &out, &errOut)
	if code := exitError(0); !errors.As(err, &code) || code != 130 || !strings.Contains(out.String(), "muster import --job=mine --server="+s.url+" "+big) || strings.Contains(out.String(), importToken) {
		t.Fatalf("%v\n%s\n%s", err, &out, &errOut)
	}
	if err := run(context.Background(), []string{"import", big, "--server", s.url, "--token", importToken, "--job", "mine"}, &out, &errOut); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, &errOut)
	}
	if n := s.lines("mine"); n != 6000 {
		t.Errorf("%d lines", n)
	}
	if err := run(context.Background(), []string{"import", big, "--server", s.url, "--token", "wrong"}, &out, &errOut); err == nil || !strings.Contains(err.Error(), "Token") {
		t.Errorf("a wrong token: %v", err)
	}
}
