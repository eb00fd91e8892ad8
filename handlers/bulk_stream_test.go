package handlers_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/importer"
)

// spooled counts the files without a name in which answers wait.
func spooled(t *testing.T) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.Contains(name, "muster-answers-") {
			if !strings.HasSuffix(name, "(deleted)") {
				t.Errorf("%s still has its name", name)
			}
			n++
		}
	}
	return n
}

// TestBulkWaitsForWhoReadsLate sends everything before it reads anything: the
// answers wait on disk, in a file that has no name.
func TestBulkWaitsForWhoReadsLate(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Log("open files cannot be listed here; that the answers arrive is checked all the same")
	}
	s := start(t, withJobs)
	const n = 15_000
	addr := strings.TrimPrefix(s.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(4 * time.Minute))
	// A failing line's answer is as long as any, and costs the least.
	line := strings.Replace(person(1), bulkHash, "bad", 1) + "\n"
	w := bufio.NewWriterSize(conn, 64<<10)
	fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", importPath, addr, adminToken, n*len(line))
	for range n {
		io.WriteString(w, line)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); spooled(t) == 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if spooled(t) == 0 {
		t.Error("no answer waits on disk")
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answers, next := bufio.NewScanner(res.Body), 1
	answers.Buffer(nil, 1<<20)
	for answers.Scan() && next <= n {
		if !bytes.HasPrefix(answers.Bytes(), []byte(fmt.Sprintf(`{"line":%d,"outcome":"failed"`, next))) {
			t.Fatalf("answer %d: %.100s", next, answers.Bytes())
		}
		next++
	}
	if !bytes.Contains(answers.Bytes(), []byte(`"failed":15000`)) {
		t.Errorf("after %d answers: %.200s %v", next-1, answers.Bytes(), answers.Err())
	}
	for range 100 {
		if spooled(t) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("a file of answers is left open")
}

// TestBulkStopsInOrder stops the service in the middle: what was taken is
// answered, the last line says that the call is to be repeated, and it then
// goes on.
func TestBulkStopsInOrder(t *testing.T) {
	var jobs *importer.Jobs
	s := start(t, func(d *handlers.Deps) { withJobs(d); jobs = d.Jobs })
	r, w := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(w, people(1, 1200))
		// Neither an end nor a further line: the service is the one to end it.
	}()
	go func() {
		<-sent
		time.Sleep(50 * time.Millisecond)
		jobs.Stop()
	}()
	first := s.bulk(t, s.http, "jobId=j", r)
	w.Close()
	last := first[len(first)-1]
	if last.id() != "MUSTER-shutdown" || last.Error.Code != 14 {
		t.Fatalf("the last line: %+v", last)
	}
	for i, a := range first[:len(first)-1] {
		if a.Line != int64(i+1) || a.Outcome != "created" {
			t.Fatalf("answer %d: %+v", i, a)
		}
	}
	if a := s.rest(t, "POST", importPath, person(1), "Content-Type", "application/x-ndjson"); a.HTTP != 503 {
		t.Errorf("a service that stops takes a job: %d", a.HTTP)
	}
	job, err := jobs.Get(context.Background(), "org-1", "j")
	if err != nil || job.State != "running" || job.Lines != int64(len(first)-1) {
		t.Fatalf("job %+v: %v", job, err)
	}

	// The next process.
	next := importer.NewJobs(s.deps.Importer, nil)
	run, err := next.Begin(context.Background(), importer.Caller{ID: "me", Org: "org-1"}, importer.Options{JobID: "j"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run.Stream(context.Background(), strings.NewReader(people(1, 1300)), &out, func() {}); err != nil {
		t.Fatal(err)
	}
	again := readAnswers(t, out.Bytes())
	if sum := again[len(again)-1].Summary; sum == nil || sum.Created != 1300 || sum.Lines != 1300 {
		t.Errorf("summary %+v", sum)
	}
	if diff := cmp.Diff(first[:len(first)-1], again[:len(first)-1]); diff != "" {
		t.Errorf("answers differ: %s", diff)
	}
}

// TestBulkPasskeys gives the links that were asked for, again too, and keeps none.
func TestBulkPasskeys(t *testing.T) {
	s := start(t, withJobs)
	body := person(1) + "\n" + strings.Replace(person(2), "{", `{"requestPasswordlessRegistration":true,`, 1) + "\n"
	first := s.bulk(t, s.http, "jobId=p", strings.NewReader(body))
	again := s.bulk(t, s.http, "jobId=p", strings.NewReader(body))
	if diff := cmp.Diff(first, again, cmp.AllowUnexported(bulkAnswer{})); diff != "" {
		t.Errorf("the answers differ: %s", diff)
	}
	link := first[1].PasswordlessRegistration
	if link == nil || !strings.Contains(link.Link, "/ui/login/login/passwordless/init?userID="+first[1].UserID) || link.Lifetime != "3600s" || first[0].PasswordlessRegistration != nil {
		t.Errorf("link: %+v", link)
	}
	kept := s.rest(t, "GET", "/v1/imports/p/answers", "")
	if strings.Contains(string(kept.Body), "code=") || strings.Count(string(kept.Body), "\n") != 2 {
		t.Errorf("kept: %s", kept.Body)
	}
}

// TestExportMakesTheSameUsers exports, imports into another service, and
// exports again.
func TestExportMakesTheSameUsers(t *testing.T) {
	s := start(t, withJobs)
	lines := []string{
		strings.Replace(person(1), "{", `{"userId":"1","state":"locked","externalId":"x|1","metadata":[{"key":"b","value":"AP8="},{"key":"a","value":""}],"otpCode":"`+canaryTOTP+`",`, 1),
		strings.Replace(person(2), "{", `{"state":"inactive","passwordChangeRequired":true,`, 1),
		`{"userName":" Ü \"3\" ","profile":{"firstName":"a","lastName":"b","nickName":"n","displayName":"d","preferredLanguage":"de-CH","gender":"GENDER_DIVERSE"},"email":{"email":"a@b"},"phone":{"phone":"+41 79 123 45 67","isPhoneVerified":true},"idps":[{"configId":"x","externalUserId":"y","displayName":"z"},{"configId":"x","externalUserId":"w"}]}`,
		person(4),
	}
	if sum := s.bulk(t, s.http, "", strings.NewReader(strings.Join(lines, "\n")))[4].Summary; sum.Created != 4 {
		t.Fatalf("%+v", sum)
	}
	if a := s.rest(t, "DELETE", "/management/v1/users/1", ""); a.HTTP != 200 { // removed: not exported
		t.Fatalf("%s", a.Body)
	}
	again := strings.Replace(lines[0], `"userId":"1"`, `"userId":"one"`, 1)
	if a := s.bulk(t, s.http, "", strings.NewReader(again))[0]; a.Outcome != "created" {
		t.Fatalf("%+v %+v", a, a.Error)
	}
	export := func(s *system) string {
		var all []byte
		n, err := s.deps.Jobs.Export(context.Background(), "org-1", func(b []byte) error { all = append(all, b...); return nil })
		if err != nil || n != 4 {
			t.Fatalf("%d users: %v", n, err)
		}
		sorted := strings.SplitAfter(string(all), "\n")
		slices.Sort(sorted)
		return strings.Join(sorted, "")
	}
	first := export(s)
	for _, part := range []string{`"state":"locked"`, `"state":"inactive"`, canaryTOTP, `"value":"AP8="`, `"externalId":"x|1"`, `"passwordChangeRequired":true`, `"preferredLanguage":"de-CH"`, bulkHash, `"+41791234567"`} {
		if !strings.Contains(first, part) {
			t.Errorf("the export lacks %s", part)
		}
	}
	other := start(t, withJobs)
	answers := other.bulk(t, other.h2, "", strings.NewReader(first))
	if sum := answers[len(answers)-1].Summary; sum == nil || sum.Created != 4 {
		t.Fatalf("%+v", answers)
	}
	if diff := cmp.Diff(first, export(other)); diff != "" {
		t.Error(diff)
	}
}
