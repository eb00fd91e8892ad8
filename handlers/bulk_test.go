package handlers_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
)

const bulkHash = "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"

// withJobs lets a service import many.
func withJobs(d *handlers.Deps) {
	d.Jobs = importer.NewJobs(d.Importer, d.Log)
	d.Bulk = handlers.ServeBulk(d.Jobs, d.Log)
}

// person is a line with a hash, a verified address and a link.
func person(n int) string {
	return fmt.Sprintf(`{"userName":"person-%d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"person-%d@example.test","isEmailVerified":true},`+
		`"hashedPassword":{"value":%q},"idps":[{"configId":"google","externalUserId":"g-%d"}]}`, n, n, bulkHash, n)
}

func people(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(person(n))
		b.WriteByte('\n')
	}
	return b.String()
}

// bulkAnswer is a line of the answer, of any kind.
type bulkAnswer struct {
	Line    int64
	Outcome string
	UserID  string
	Details struct{ Sequence, CreationDate, ChangeDate, ResourceOwner string }
	Error   *struct {
		Code    int
		Message string
		Details []errorDetail
	}
	Field    string
	Warnings []struct{ Field, Text string }
	Summary  *struct {
		JobID                                    string
		DryRun                                   bool
		Lines, Created, Updated, Skipped, Failed int64
		Seconds                                  float64
		Position                                 int64
		Forecast                                 map[string]any
	}
	PasswordlessRegistration *struct{ Link, Lifetime string }
}

func (a bulkAnswer) id() string {
	if a.Error != nil && len(a.Error.Details) > 0 {
		return a.Error.Details[0].ID
	}
	return ""
}

// bulk makes a call and returns its answers.
func (s *system) bulk(t testing.TB, client *http.Client, query string, body io.Reader, headers ...string) []bulkAnswer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.url+importPath+"?"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	setHeaders(req.Header, append([]string{"Content-Type", "application/x-ndjson"}, headers...))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(b), err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("status %d: %s", res.StatusCode, b)
	}
	return readAnswers(t, b)
}

func readAnswers(t testing.TB, b []byte) []bulkAnswer {
	t.Helper()
	var out []bulkAnswer
	for line := range bytes.Lines(b) {
		var a bulkAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, a)
	}
	return out
}

func (s *system) head(t testing.TB) eventstore.Position {
	t.Helper()
	c, err := s.store.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c.Position
}

func TestBulkAnswersWhileLinesArrive(t *testing.T) {
	s := start(t, withJobs)
	for name, client := range map[string]*http.Client{"HTTP/1.1": s.http, "HTTP/2": s.h2} {
		t.Run(name, func(t *testing.T) {
			base := map[string]int{"HTTP/1.1": 1000, "HTTP/2": 2000}[name]
			r, w := io.Pipe()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+importPath, r)
			if err != nil {
				t.Fatal(err)
			}
			setHeaders(req.Header, []string{"Content-Type", "application/x-ndjson"})
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := fmt.Sprintf("HTTP/%d", res.ProtoMajor); !strings.HasPrefix(name, got) {
				t.Fatalf("spoke %s", got)
			}
			answers := bufio.NewReader(res.Body)
			// Each line is sent only when the one before has its answer.
			for n := 1; n <= 5; n++ {
				if _, err := io.WriteString(w, person(base+n)+"\n"); err != nil {
					t.Fatal(err)
				}
				line, err := answers.ReadBytes('\n')
				if err != nil {
					t.Fatal(err)
				}
				a := readAnswers(t, line)[0]
				if a.Line != int64(n) || a.Outcome != "created" || a.UserID == "" || a.Details.Sequence != "4" || a.Details.ResourceOwner != "org-1" {
					t.Fatalf("answer %s", line)
				}
			}
			w.Close()
			line, err := answers.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			sum := readAnswers(t, line)[0].Summary
			if sum == nil || sum.Created != 5 || sum.Failed != 0 || sum.JobID == "" || sum.Position != int64(s.head(t))-1 {
				t.Fatalf("summary %s", line)
			}
			if _, err := answers.ReadByte(); err != io.EOF {
				t.Errorf("after the summary: %v", err)
			}
		})
	}
}

func TestBulkOptions(t *testing.T) {
	s := start(t, withJobs)
	file := people(1, 700) + "\n" + person(5) + "\n" + `{"userName":"x"}` + "\r\n" + `{"password":"canary-secret"`
	first := s.bulk(t, s.http, "dryRun=true&jobId=dry", strings.NewReader(file))
	if head := s.head(t); head != 2 { // the two organisations
		t.Fatalf("a dry run appended: the log ends at %d", head)
	}
	second := s.bulk(t, s.h2, "jobId=real", strings.NewReader(file))
	if len(first) != 704 || len(second) != len(first) {
		t.Fatalf("%d and %d answers", len(first), len(second))
	}
	for i, a := range second[:703] {
		b := first[i]
		if a.Line != b.Line || a.Outcome != b.Outcome || a.Field != b.Field || a.id() != b.id() {
			t.Errorf("the dry run says %+v, the real one %+v", b, a)
		}
	}
	for i, want := range []struct {
		line  int64
		id    string
		field string
	}{{702, "V3-DKcYh", "userName"}, {703, "", "profile"}, {704, "", ""}} {
		if a := second[700+i]; a.Line != want.line || a.Outcome != "failed" || a.id() != want.id || a.Field != want.field {
			t.Errorf("line %d: %+v", want.line, a)
		}
	}
	sum := second[703].Summary
	if sum == nil || sum.Created != 700 || sum.Failed != 3 || sum.Lines != 704 || sum.Forecast["password"].(float64) != 700 {
		t.Errorf("summary %+v", sum)
	}

	// The same file again, three ways: nothing is appended but what the jobs
	// say of themselves.
	for range 2 {
		before := s.head(t)
		again := s.bulk(t, s.http, "onConflict=skip", strings.NewReader(people(1, 700)))
		if n := s.head(t) - before; n != 2 { // ImportStarted, ImportFinished
			t.Errorf("skip appended %d events", n)
		}
		if sum := again[len(again)-1].Summary; sum.Skipped != 700 || again[0].UserID != second[0].UserID {
			t.Errorf("skip: %+v", sum)
		}
	}
	before := s.head(t)
	resumed := s.bulk(t, s.http, "jobId=real", strings.NewReader(file))
	if s.head(t) != before {
		t.Errorf("repeating the call appended events")
	}
	for i := range resumed[:703] {
		if fmt.Sprint(resumed[i]) != fmt.Sprint(second[i]) && resumed[i].Error == nil {
			t.Errorf("repeated: %+v, at first: %+v", resumed[i], second[i])
		}
	}
	other := s.bulk(t, s.http, "jobId=real", strings.NewReader(person(77)+"\n"+file))
	if a := other[len(other)-1]; a.Error == nil || a.id() != "MUSTER-otherlines" {
		t.Errorf("other lines: %+v", a)
	}
	update := s.bulk(t, s.http, "onConflict=update", strings.NewReader(strings.Replace(people(1, 3), "Lind", "Lund", 1)))
	for i, want := range []string{"updated", "skipped", "skipped"} {
		if update[i].Outcome != want || update[i].UserID != second[i].UserID {
			t.Errorf("update: line %d %+v", i+1, update[i])
		}
	}

	for query, id := range map[string]string{
		"jobId=real&onConflict=skip": "MUSTER-joboptions", "jobId=a/b": "MUSTER-jobid", "onConflict=no": "MUSTER-option",
		"dryRun=maybe": "MUSTER-query", "jobId=new&fromLine=9": "MUSTER-fromline",
	} {
		a := s.rest(t, "POST", importPath+"?"+query, person(1), "Content-Type", "application/x-ndjson")
		if a.HTTP != 400 || a.id() != id {
			t.Errorf("%s: %d %s", query, a.HTTP, a.Body)
		}
	}
	if got := s.rest(t, "GET", "/v1/imports/real/failures", ""); len(readAnswers(t, got.Body)) != 3 || strings.Contains(string(got.Body), "canary") {
		t.Errorf("failures: %s", got.Body)
	}
	viewer := s.token(t, "org-2", access.OrgUserViewer)
	if a := s.rest(t, "GET", "/v1/imports/real", "", "Authorization", "Bearer "+viewer); a.HTTP != 404 {
		t.Errorf("another organisation reads the job: %s", a.Body)
	}
	if a := s.rest(t, "POST", "/v1/imports/real/_undo", "", "Authorization", "Bearer "+viewer); a.HTTP != 403 {
		t.Errorf("a viewer undoes: %s", a.Body)
	}
	undone := s.rest(t, "POST", "/v1/imports/real/_undo", "")
	if undone.raw["removed"].(float64) != 699 || undone.raw["kept"].(float64) != 1 { // one has been updated
		t.Errorf("undo: %s", undone.Body)
	}
	if again := s.rest(t, "POST", "/v1/imports/real/_undo", ""); again.raw["removed"].(float64) != 699 {
		t.Errorf("undo again: %s", again.Body)
	}
	if list := s.rest(t, "GET", "/v1/imports", ""); list.HTTP != 200 || !strings.Contains(string(list.Body), `"state":"undone"`) {
		t.Errorf("list: %s", list.Body)
	}
}

func TestBulkTakesCompressedBodies(t *testing.T) {
	s := start(t, withJobs)
	var z, g bytes.Buffer
	zw, _ := zstd.NewWriter(&z)
	io.WriteString(zw, people(1, 50))
	zw.Close()
	gw := gzip.NewWriter(&g)
	io.WriteString(gw, people(51, 100))
	gw.Close()
	cut := bytes.NewReader(g.Bytes()[:g.Len()-100])
	for _, c := range []struct {
		encoding string
		body     io.Reader
		id       string
	}{{"zstd", &z, ""}, {"gzip", &g, ""}, {"gzip", cut, "MUSTER-body"}, {"zstd", strings.NewReader("no"), "MUSTER-body"}} {
		answers := s.bulk(t, s.http, "onConflict=skip", c.body, "Content-Encoding", c.encoding)
		last := answers[len(answers)-1]
		if c.id == "" && (last.Summary == nil || last.Summary.Created != 50) || c.id != last.id() {
			t.Errorf("%s: %+v", c.encoding, last)
		}
	}
	if a := s.rest(t, "POST", importPath, "x", "Content-Type", "application/x-ndjson", "Content-Encoding", "br"); a.HTTP != 400 {
		t.Errorf("br: %s", a.Body)
	}
}

// TestBulkFirstLineWins has every user name many times: whatever is committed
// when, the first line gets it, dry or not, and the later ones are judged as if
// each had come alone.
func TestBulkFirstLineWins(t *testing.T) {
	s := start(t, withJobs)
	var b strings.Builder
	for n := range 3000 {
		line := person(n%400 + 1)
		if n%400%2 == 0 {
			line = strings.Replace(line, "{", fmt.Sprintf(`{"userId":"u-%d",`, n%400+1), 1)
		}
		b.WriteString(line + "\n")
	}
	for _, query := range []string{"dryRun=true", "onConflict=skip&dryRun=true", ""} {
		got := s.bulk(t, s.h2, query, strings.NewReader(b.String()))
		for i, a := range got[:3000] {
			want, id, field := "created", "", ""
			switch {
			case i >= 400 && strings.Contains(query, "skip"):
				want = "skipped"
			case i >= 400 && i%400%2 == 0:
				want, id, field = "failed", "V3-DKcYh", "userId"
			case i >= 400:
				want, id, field = "failed", "V3-DKcYh", "userName"
			}
			if a.Line != int64(i+1) || a.Outcome != want || a.id() != id || a.Field != field {
				t.Fatalf("%q line %d: %+v", query, i+1, a)
			}
		}
	}
	// Each line changes what the one before has made.
	var updates strings.Builder
	for n := range 30 {
		updates.WriteString(strings.Replace(person(5), "Lind", fmt.Sprintf("Lind-%d", n), 1) + "\n")
	}
	got := s.bulk(t, s.http, "onConflict=update", strings.NewReader(updates.String()))
	for i, a := range got[:30] {
		if want := fmt.Sprint(5 + i); a.Outcome != "updated" || a.Details.Sequence != want {
			t.Errorf("update %d: %+v", i, a)
		}
	}
}
