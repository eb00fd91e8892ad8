// Package chaos tries the consumers: people are imported at full speed while
// instances of Muster, JetStream nodes, consumers and the mail server are
// killed and started again at random, and the webhook's receiver fails or hangs
// for a while. Some consumers are quick, one is slow, one
// is down for the whole import, and one person's events are refused by every
// receiver. In the end each receiver must have got every event, in order for
// each person, under one effect id; the broker's stream must have every position
// once; each mail must have been accepted once, or be listed as in doubt; and
// only that one person may be held up.
//
// The checks are shown to find faults by breaking what they guard; see
// mutants.md in this folder.
package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/internal/cluster"
)

// Config says what to do. Dir, Muster and Out are required.
type Config struct {
	// Dir, Muster, Env and DatabaseURL are the cluster's.
	Dir         string
	Muster, Env []string
	DatabaseURL string
	// Nodes is how many JetStream nodes there are, 1 or 3.
	Nodes int
	// Events is about how many are imported, Pause how long a disturbance waits
	// for the next, Turns how often each kind has its turn at least: beyond the
	// import's end, if need be, while the consumers catch up. Default 1.
	Events int
	Pause  time.Duration
	Turns  int
	// Seed makes the plan of disturbances; 0: a random one.
	Seed uint64
	// Settle bounds the time from the import's end to the last event's arrival.
	Settle time.Duration
	// Out gets the report, Log what the processes print.
	Out, Log io.Writer
}

// Report is what came of it.
type Report struct {
	Seed           uint64
	People, Events int
	// Alone, Beside and Disturbed are the import's events a second: without the
	// consumers (the mean of before they were started and after they have ended),
	// with them, and with the disturbances too.
	Alone, Beside, Disturbed float64
	// Troubles counts the disturbances by kind.
	Troubles map[string]int
	// Settled is how long the consumers took after the import's end.
	Settled time.Duration
	// Wrong is what was wrong; nothing, if all is well.
	Wrong []string
}

// poison is the person whose events every receiver refuses.
const poison = "poison-person"

// perPerson is how many events an import has; every mailEvery-th person cannot
// get in without a code, and is mailed.
const (
	perPerson = 3
	mailEvery = 25
	chunk     = 200 // lines of an import
)

type run struct {
	cfg     Config
	c       *cluster.Cluster
	mail    *mailServer
	http    *httptest.Server
	ledgers map[string]*ledger
	people  atomic.Int64
	mailed  atomic.Int64
	rnd     *rand.Rand
	last    string // what arrived last

	hook atomic.Pointer[hookTrouble] // nil while the webhook's receiver is well
}

// hookTrouble is a time in which the webhook's receiver answers 503, or takes
// calls and cuts them without an answer when it ends.
type hookTrouble struct {
	hangs bool
	over  chan struct{}
	met   chan struct{} // closed by the first event that it keeps back
	once  sync.Once
}

// troubles are the kinds of disturbance, in the order of the report.
var troubles = []string{"JetStream nodes killed", "instances killed", "consumers killed", "mail server cut", "webhook receiver fails", "webhook receiver hangs"}

// Run runs once. An error says that it could not be tried, and not that
// something was wrong.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	cfg.Turns = max(cfg.Turns, 1)
	rep := Report{Seed: cfg.Seed, Troubles: map[string]int{}}
	r := &run{cfg: cfg, mail: &mailServer{got: map[string]int{}}, rnd: rand.New(rand.NewPCG(cfg.Seed, 0)), ledgers: map[string]*ledger{}}
	for _, name := range []string{"crm", "slow", "late", "webhook"} {
		r.ledgers[name] = newLedger()
	}
	r.http = httptest.NewServer(http.HandlerFunc(r.receive))
	defer r.http.Close()
	if err := r.mail.start(); err != nil {
		return rep, err
	}
	defer r.mail.stop()
	var err error
	r.c, err = cluster.Start(ctx, cluster.Config{
		Dir: cfg.Dir, Muster: cfg.Muster, DatabaseURL: cfg.DatabaseURL, Nodes: cfg.Nodes, Log: cfg.Log,
		Env: append(slices.Clone(cfg.Env), "MUSTER_LEASE_TTL=1s", "MUSTER_WEBHOOKS_PRIVATE=true", "MUSTER_WEBHOOKS_RETRY=200ms", "MUSTER_MAIL_RATE=500",
			"MUSTER_SMTP_URL=smtp://"+r.mail.address, "MUSTER_PUBLIC_URL=http://id.example.test"),
	})
	if err != nil {
		return rep, err
	}
	defer r.c.Stop()

	// The import alone, once connections and caches are there.
	people := cfg.Events / perPerson
	if _, err = r.load(ctx, people/10); err != nil {
		return rep, err
	}
	before, err := r.load(ctx, people*3/10)
	if err != nil {
		return rep, err
	}
	// Beside the consumers, and then with disturbances.
	hook, err := r.webhook(ctx)
	if err != nil {
		return rep, err
	}
	self, err := os.Executable()
	if err != nil {
		return rep, err
	}
	start := func(name string, delay time.Duration) (*cluster.Process, error) {
		env, err := json.Marshal(child{Name: name, Database: r.c.DatabaseURL, KeyFile: r.c.KeyFile(), Receiver: r.http.URL, Delay: delay})
		if err != nil {
			return nil, err
		}
		p := cluster.NewProcess(name, []string{self}, append(os.Environ(), childEnv+"="+string(env)), cfg.Log)
		return p, p.Start(ctx)
	}
	var killable []*cluster.Process
	for _, c := range []struct {
		name  string
		delay time.Duration
	}{{"crm", 0}, {"crm", 0}, {"slow", 2 * time.Millisecond}} {
		p, err := start(c.name, c.delay)
		if err != nil {
			return rep, err
		}
		defer p.Stop()
		killable = append(killable, p)
	}
	// They begin with what was there before, and are measured as they are then.
	if err := r.caughtUp(ctx); err != nil {
		return rep, err
	}
	if rep.Beside, err = r.load(ctx, people*3/10); err != nil {
		return rep, err
	}
	disturb, calm := context.WithCancel(ctx)
	defer calm()
	var trouble error
	var disturbing sync.WaitGroup
	disturbing.Go(func() { trouble = r.disturb(disturb, ctx, killable, rep.Troubles) })
	rep.Disturbed, err = r.load(ctx, people*3/10)
	ended := time.Now()
	calm()
	disturbing.Wait()
	if err = errors.Join(err, trouble); err != nil {
		return rep, err
	}
	p, err := start("late", 0)
	if err != nil {
		return rep, err
	}
	defer p.Stop()
	rep.Wrong, err = r.settle(ctx)
	rep.Settled = time.Since(ended)
	rep.People = int(r.people.Load())
	if n, qerr := r.ends(ctx); qerr == nil {
		for _, end := range n {
			rep.Events += int(end)
		}
	}
	if err != nil {
		return rep, err
	}
	r.print(&rep)
	// Alone once more, in a log of that size.
	for _, p := range append(killable, p) {
		p.Stop()
	}
	if err := r.call(ctx, http.MethodDelete, "/v1/webhooks/"+hook, "", nil); err != nil {
		return rep, err
	}
	after, err := r.load(ctx, people*3/10)
	if err != nil {
		return rep, err
	}
	rep.Alone = (before + after) / 2
	fmt.Fprintf(cfg.Out, "import: %.0f events/s alone (%.0f before, %.0f after), %.0f beside consumers (%.2f), %.0f with disturbances too (%.2f)\n",
		rep.Alone, before, after, rep.Beside, rep.Beside/rep.Alone, rep.Disturbed, rep.Disturbed/rep.Alone)
	return rep, nil
}

// receive is every receiver: an HTTP endpoint that refuses one person. The
// webhook's has troubles of its own.
func (r *run) receive(w http.ResponseWriter, req *http.Request) {
	name := strings.TrimPrefix(req.URL.Path, "/")
	q := req.URL.Query()
	effect, stream := q.Get("effect"), q.Get("stream")
	var sequence int64
	if name == "webhook" {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		doc, err := consumers.ParseDocument(body)
		if err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		effect, stream, sequence = req.Header.Get("webhook-id"), doc.Event.Stream, doc.Event.Sequence
		if t := r.hook.Load(); t != nil {
			meet := func() { t.once.Do(func() { close(t.met) }) }
			if !t.hangs {
				meet()
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			switch {
			case stream == poison:
			case sequence%2 == 0: // it has taken effect all the same
				r.ledgers[name].take(effect, stream, sequence)
			default:
				meet()
			}
			<-t.over
			panic(http.ErrAbortHandler)
		}
	} else if _, err := fmt.Sscan(q.Get("sequence"), &sequence); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	if stream == poison {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.ledgers[name].take(effect, stream, sequence)
}

// webhook makes an endpoint for the events of all organisations, and returns its
// id.
func (r *run) webhook(ctx context.Context) (id string, err error) {
	var made struct{ Webhook struct{ ID string } }
	body := fmt.Sprintf(`{"url":%q,"allOrganisations":true,"from":"beginning"}`, r.http.URL+"/webhook")
	err = r.call(ctx, http.MethodPost, "/v1/webhooks", body, &made)
	return made.Webhook.ID, err
}

// call makes a call of the first instance and decodes its answer.
func (r *run) call(ctx context.Context, method, path, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, r.c.Instances[0].URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.c.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("chaos: %s %s: %s", method, path, res.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// load imports n people, four chunks at a time, each over and over until it is
// answered whole, and returns the events a second.
func (r *run) load(ctx context.Context, n int) (float64, error) {
	began, before := time.Now(), r.people.Load()
	jobs := make(chan int64)
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for first := range jobs {
				if err := r.importChunk(ctx, first, w); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for first := before; first < before+int64(n); first += chunk {
		jobs <- first
	}
	close(jobs)
	workers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(r.people.Load()-before) * perPerson / time.Since(began).Seconds(), nil
}

// importChunk imports one chunk, through whichever instance takes it.
func (r *run) importChunk(ctx context.Context, first int64, worker int) error {
	var lines strings.Builder
	mailed := 0
	for i := first; i < first+chunk; i++ {
		id := fmt.Sprintf("person-%d", i)
		if i == 7 {
			id = poison
		}
		verified, password := "true", `,"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}`
		if i%mailEvery == 0 {
			verified, password = "false", "" // an initialization code
			mailed++
		}
		fmt.Fprintf(&lines, `{"userId":%q,"userName":"u%d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"u%[2]d@example.test","isEmailVerified":%s}%s}`+"\n",
			id, i, verified, password)
	}
	for try := worker; ; try++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		url := fmt.Sprintf("%s/management/v1/users/human/_import?notify=init&jobId=chunk-%d", r.c.Instances[try%2].URL, first)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(lines.String()))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+r.c.Token)
		req.Header.Set("Content-Type", "application/x-ndjson")
		var answer []byte
		if res, err := http.DefaultClient.Do(req); err == nil {
			answer, _ = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		text := string(answer)
		if strings.Contains(text, `"summary"`) && strings.Count(text, `"outcome":"created"`) == chunk {
			r.people.Add(chunk)
			r.mailed.Add(int64(mailed))
			return nil
		}
		if strings.Contains(text, `"outcome":"failed"`) && strings.Contains(text, `"summary"`) && !strings.Contains(text, `"code":14`) {
			return fmt.Errorf("chaos: an import has failed: %.500s", text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// disturb kills one thing at a time and starts it again, until ctx ends and
// each kind has had its turns. What it has killed is running again then.
func (r *run) disturb(ctx, whole context.Context, killable []*cluster.Process, counts map[string]int) error {
	var order []int
	for turn := 0; turn < r.cfg.Turns*len(troubles) || ctx.Err() == nil; turn++ {
		if len(order) == 0 {
			order = r.rnd.Perm(len(troubles))
		}
		var again func() error
		kill := func(list []*cluster.Process) {
			p := list[r.rnd.IntN(len(list))]
			p.Kill()
			again = func() error { return p.Start(whole) }
		}
		switch order[0] {
		case 0:
			kill(r.c.Nodes)
		case 1:
			kill(r.c.Instances)
		case 2:
			kill(killable)
		case 3:
			r.mail.stop()
			again = r.mail.start
		default:
			t := &hookTrouble{hangs: order[0] == 5, over: make(chan struct{}), met: make(chan struct{})}
			r.hook.Store(t)
			again = func() error { //nolint:unparam // the others' may fail
				select { // the endpoint may just be left in peace
				case <-t.met:
				case <-time.After(2 * time.Second):
				}
				r.hook.Store(nil)
				close(t.over)
				return nil
			}
		}
		counts[troubles[order[0]]]++
		order = order[1:]
		for range 2 { // down for a while, up for a while
			select {
			case <-time.After(time.Duration(r.rnd.Int64N(int64(r.cfg.Pause)))):
			case <-whole.Done():
				if t := r.hook.Load(); t != nil {
					close(t.over) // or the receiver does not close
				}
				return whole.Err()
			}
			if again != nil {
				if err := again(); err != nil {
					return err
				}
				again = nil
			}
		}
	}
	return nil
}

// ends are the last sequences of all streams.
func (r *run) ends(ctx context.Context) (map[string]int64, error) {
	conn, err := pgx.Connect(ctx, r.c.DatabaseURL)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT stream, max(sequence) FROM events GROUP BY stream`)
	if err != nil {
		return nil, err
	}
	ends := map[string]int64{}
	var stream string
	var end int64
	_, err = pgx.ForEachRow(rows, []any{&stream, &end}, func() error { ends[stream] = end; return nil })
	return ends, err
}

// caughtUp waits until the consumers that run have everything that there is.
func (r *run) caughtUp(ctx context.Context) error {
	ends, err := r.ends(ctx)
	for deadline := time.Now().Add(r.cfg.Settle); err == nil; time.Sleep(50 * time.Millisecond) {
		var missing int64
		for name, l := range r.ledgers {
			if name != "late" {
				missing += l.missing(ends, poison)
			}
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("chaos: after %v the consumers lack %d events", r.cfg.Settle, missing)
		}
		err = ctx.Err()
	}
	return err
}

// settle waits until everything has arrived, and returns what is wrong.
func (r *run) settle(ctx context.Context) (wrong []string, err error) {
	deadline := time.Now().Add(r.cfg.Settle)
	ends, err := r.ends(ctx)
	if err != nil {
		return nil, err
	}
	var total int64
	for _, end := range ends {
		total += end
	}
	for {
		var open []string
		for name, l := range r.ledgers {
			if n := l.missing(ends, poison); n > 0 {
				open = append(open, fmt.Sprintf("%s lacks %d of %d events", name, n, total))
			}
		}
		stream, err := r.stream(ctx, total, false)
		if err != nil {
			open = append(open, err.Error())
		} else if stream != "" {
			open = append(open, stream)
		}
		mails, held, err := r.state(ctx)
		if err != nil {
			return nil, err
		}
		open = append(open, mails...)
		open = append(open, held...)
		if len(open) == 0 {
			break
		}
		r.last = open[0]
		if time.Now().After(deadline) {
			wrong = open
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for name, l := range r.ledgers {
		l.mu.Lock()
		for _, w := range l.wrong {
			wrong = append(wrong, name+": "+w)
		}
		l.mu.Unlock()
	}
	stream, err := r.stream(ctx, total, true)
	if err != nil {
		stream = err.Error()
	}
	if stream != "" {
		wrong = append(wrong, stream)
	}
	r.mail.mu.Lock()
	defer r.mail.mu.Unlock()
	for id, n := range r.mail.got {
		if n != 1 {
			wrong = append(wrong, fmt.Sprintf("mail %s was sent %d times", id, n))
		}
	}
	return wrong, nil
}

// state looks at mails and at who is held up.
func (r *run) state(ctx context.Context) (mails, held []string, err error) {
	conn, err := pgx.Connect(ctx, r.c.DatabaseURL)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT effect::text, state FROM consumer_effects WHERE consumer = 'mail'`)
	if err != nil {
		return nil, nil, err
	}
	r.mail.mu.Lock()
	defer r.mail.mu.Unlock()
	known := 0
	var effect, state string
	_, err = pgx.ForEachRow(rows, []any{&effect, &state}, func() error {
		known++
		if state == "started" || state == "finished" && r.mail.got["<"+effect+"@id.example.test>"] != 1 {
			mails = append(mails, fmt.Sprintf("mail %s is recorded as %s and was accepted %d times", effect, state, r.mail.got["<"+effect+"@id.example.test>"]))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if int64(known) != r.mailed.Load() {
		mails = append(mails, fmt.Sprintf("%d mails are on record, %d are due", known, r.mailed.Load()))
	}
	rows, err = conn.Query(ctx, `SELECT consumer || ' ' || stream || ' ' || error_class FROM consumer_parked`)
	if err != nil {
		return nil, nil, err
	}
	parked := 0
	var text string
	_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
		if parked++; !strings.Contains(text, " "+poison+" ") {
			held = append(held, "held up: "+text)
		}
		return nil
	})
	if parked != 4 { // crm, slow, late, and the webhook
		held = append(held, fmt.Sprintf("%d consumers have set the poison aside, of 4", parked))
	}
	return mails, held, err
}

// stream looks at the broker's stream: at how long it is, and when thorough at
// every position.
func (r *run) stream(ctx context.Context, want int64, thorough bool) (wrong string, err error) {
	conn, err := nats.Connect(r.c.NATSURL)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return "", err
	}
	s, err := js.Stream(ctx, "MUSTER")
	if err != nil {
		return "", err
	}
	if got := int64(s.CachedInfo().State.Msgs); got != want {
		return fmt.Sprintf("the broker's stream has %d messages of %d", got, want), nil
	}
	if !thorough {
		return "", nil
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return "", err
	}
	messages, err := c.Messages()
	if err != nil {
		return "", err
	}
	defer messages.Stop()
	for position := int64(1); position <= want; position++ {
		m, err := messages.Next()
		if err != nil {
			return "", err
		}
		if got := m.Headers().Get(consumers.HeaderPosition); got != fmt.Sprint(position) {
			return fmt.Sprintf("on the broker's stream position %s follows %d", got, position-1), nil
		}
	}
	return "", nil
}

func (r *run) print(rep *Report) {
	w := r.cfg.Out
	fmt.Fprintf(w, "seed %d: %d people, %d events\n", rep.Seed, rep.People, rep.Events)
	for _, kind := range troubles {
		fmt.Fprintf(w, "  %-24s %6d\n", kind, rep.Troubles[kind])
	}
	for _, name := range []string{"crm", "slow", "late", "webhook"} {
		l := r.ledgers[name]
		l.mu.Lock()
		fmt.Fprintf(w, "  %-24s %6d effects, %d deliveries, %d of them repeated\n", name, len(l.effects), l.deliveries, l.repeats)
		l.mu.Unlock()
	}
	r.mail.mu.Lock()
	fmt.Fprintf(w, "  %-24s %6d of %d\n", "mails accepted", len(r.mail.got), r.mailed.Load())
	r.mail.mu.Unlock()
	fmt.Fprintf(w, "everything had arrived %.1f s after the import's end; at last: %s\n", rep.Settled.Seconds(), r.last)
	for _, s := range rep.Wrong {
		fmt.Fprintln(w, "WRONG:", s)
	}
}
