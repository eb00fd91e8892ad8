package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

func init() { sections = append(sections, section{"import", benchImport}) }

// benchImport measures how fast a whole user base comes in: -users people with
// a hash, a verified e-mail address and a link to a provider, four sealed events
// each, in one call over HTTP to `muster serve` in a process of its own, with
// its read models on. Beside it stands what COPY alone makes of the same rows.
func benchImport(ctx context.Context, b *bench) error {
	n := b.users
	limit, err := b.copyLimit(ctx, max(n/5, 20_000))
	if err != nil {
		return fmt.Errorf("COPY: %w", err)
	}
	got, err := b.importAll(ctx, n)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Importing %d users (hash, verified e-mail, one link) over HTTP, read models on", n),
		[]string{"", "", ""}, [][]string{
			{"COPY of the same rows, two connections", perSecond(limit), "1.00"},
			{"import", perSecond(got.rate), ratio(got.rate, limit)},
			{"the first tenth", perSecond(got.first), ratio(got.first, limit)},
			{"the last tenth", perSecond(got.last), ratio(got.last, limit)},
			{"the service's memory at its highest", fmt.Sprintf("%d MB", got.memory>>20), ""},
			{"read models caught up after", fmt.Sprintf("%.1f s", got.behind.Seconds()), ""},
		})
	return nil
}

type imported struct {
	rate, first, last float64
	memory            int64 // bytes
	behind            time.Duration
}

// importAll runs one import of n users and measures it.
func (b *bench) importAll(ctx context.Context, n int) (imported, error) {
	var got imported
	url, drop, err := b.database(ctx, "import")
	if err != nil {
		return got, err
	}
	defer drop()
	address, pid, stop, err := b.child(ctx, url)
	if err != nil {
		return got, err
	}
	defer stop()

	body, w := io.Pipe()
	go func() { w.CloseWithError(writePeople(w, n)) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/management/v1/users/human/_import", body)
	if err != nil {
		return got, err
	}
	req.Header.Set("Authorization", "Bearer bench")
	req.Header.Set("Content-Type", "application/x-ndjson")
	begin := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return got, err
	}
	defer res.Body.Close()
	tenth := max(n/10, 1)
	marks := make([]time.Duration, 0, 11)
	marks = append(marks, 0)
	var summary struct {
		Summary *struct {
			Created, Failed, Position int64
		}
	}
	answers := bufio.NewReaderSize(res.Body, 256<<10)
	for lines := 0; ; lines++ {
		line, err := answers.ReadSlice('\n')
		if err != nil {
			return got, fmt.Errorf("after %d answers: %w", lines, err)
		}
		if lines > 0 && lines%tenth == 0 {
			marks = append(marks, time.Since(begin))
		}
		if bytes.HasPrefix(line, []byte(`{"line"`)) {
			continue
		}
		if err := json.Unmarshal(line, &summary); err != nil || summary.Summary == nil || summary.Summary.Created != int64(n) {
			return got, fmt.Errorf("the import ended with %.300s", line)
		}
		break
	}
	took := time.Since(begin)
	got.rate = float64(n) / took.Seconds()
	got.first = float64(tenth) / (marks[1] - marks[0]).Seconds()
	last := len(marks) - 1
	got.last = float64(tenth) / (marks[last] - marks[last-1]).Seconds()

	end := time.Now()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return got, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		var behind int64
		err := conn.QueryRow(ctx, `SELECT count(*) FROM projection_ranges JOIN projections USING (name, version) WHERE state = 'live' AND position < $1`, summary.Summary.Position).Scan(&behind)
		if err != nil {
			return got, err
		}
		if behind == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	got.behind = time.Since(end)
	got.memory = highWater(pid)
	return got, nil
}

// child builds muster and serves a database with it, in a process of its own.
func (b *bench) child(ctx context.Context, database string) (address string, pid int, stop func(), err error) {
	binary := filepath.Join(b.tmp, "muster")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/muster")
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/muster-id/muster").Output()
	if err != nil {
		return "", 0, nil, err
	}
	build.Dir = strings.TrimSpace(string(root))
	if out, err := build.CombinedOutput(); err != nil {
		return "", 0, nil, fmt.Errorf("building muster: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, nil, err
	}
	listen := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command(binary, "serve")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+database, "MUSTER_LISTEN="+listen, "MUSTER_ADMIN_TOKEN=bench", "MUSTER_ORG_ID=bench",
		"MUSTER_LOG_LEVEL=warn", "MUSTER_DATA_DIR="+filepath.Join(b.tmp, fmt.Sprintf("serve-%d", serial.Add(1))))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	address = "http://" + listen
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(address + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return address, cmd.Process.Pid, stop, nil
			}
		}
	}
	stop()
	return "", 0, nil, errors.New("muster serve does not get ready")
}

// writePeople writes n lines of the import's stream.
func writePeople(w io.Writer, n int) error {
	buf := bufio.NewWriterSize(w, 128<<10)
	for i := 1; i <= n; i++ {
		_, err := fmt.Fprintf(buf, `{"userName":"person-%d@example.test","profile":{"firstName":"Ada","lastName":"Lind-%d","preferredLanguage":"sv"},"email":{"email":"person-%d@example.test","isEmailVerified":true},`+
			`"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"},"idps":[{"configId":"google","externalUserId":"11000000000%d"}]}`+"\n", i, i, i, i)
		if err != nil {
			return err
		}
	}
	return buf.Flush()
}

// highWater is the most memory that a process has had resident, in bytes; 0
// where the system does not tell.
func highWater(pid int) int64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// copyChunk is how many users one transaction of the limit has.
const copyChunk = 2000

// copyLimit writes the rows of n users with COPY over two connections, and does
// nothing else: no checks, no order, no answers, no read models. It returns
// users a second.
func (b *bench) copyLimit(ctx context.Context, n int) (float64, error) {
	url, drop, err := b.database(ctx, "copy")
	if err != nil {
		return 0, err
	}
	defer drop()
	example, err := human(0)
	if err != nil {
		return 0, err
	}
	link := domain.IDPLinked{ConfigID: "google", ExternalUserID: "11000000000123456"}
	data, personal := domain.Encode(link)
	example.Events = append(example.Events, eventstore.NewEvent{Type: link.Type(), Schema: 1, Data: data, Personal: personal})
	const workers = 2
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for range n / workers / copyChunk {
				if err := copyUsers(ctx, conn, &example); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(n/workers/copyChunk*workers*copyChunk) / time.Since(begin).Seconds(), err
}

func copyUsers(ctx context.Context, conn *pgx.Conn, example *eventstore.Append) error {
	var streams, claims, events [][]any
	batch, at := serial.Add(1), time.Now()
	for u := range copyChunk {
		id := ulid.Make().String()
		slice := eventstore.SliceOf(id)
		random := make([]byte, 60+2*32+len(example.Events)*16)
		rand.Read(random)
		streams = append(streams, []any{id, slice, "01HORG", int64(len(example.Events)), "k1", random[:60]})
		claims = append(claims, []any{random[60:92], id}, []any{random[92:124], id})
		for k, e := range example.Events {
			var sealed []byte
			if e.Personal != nil {
				sealed = make([]byte, 12+len(e.Personal)+16)
				rand.Read(sealed)
			}
			events = append(events, []any{batch, int32(u*len(example.Events) + k), slice, id, int64(k + 1), [16]byte(random[124+16*k:]),
				e.Type, e.Schema, "01HORG", "bench", at, e.Data, sealed})
		}
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, t := range []struct {
			name    string
			columns []string
			rows    [][]any
		}{
			{"streams", []string{"stream", "slice", "org", "sequence", "kek", "data_key"}, streams},
			{"claims", []string{"hash", "stream"}, claims},
			{"events", []string{"batch", "idx", "slice", "stream", "sequence", "id", "type", "schema", "org", "actor", "at", "data", "sealed"}, events},
		} {
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, pgx.CopyFromRows(t.rows)); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		return nil
	})
}
