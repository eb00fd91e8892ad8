package importer

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/importer/source"
)

// How a job works.
//
// Lines are read ahead into chunks of at most chunkLines. Each chunk has a
// goroutine that decodes and checks its lines, and appends its users with the
// event store's AppendMany; window bounds the chunks under way, and with them
// the memory. Answers are written down in the database and then sent, in order
// of the lines: what has been answered is answered the same way ever after.
//
// Which of two lines with the same user name wins does not depend on timing.
// A line that wants what a line before it, not settled yet, wants too, is
// deferred until every line before its chunk is settled.
//
// A call that breaks off leaves lines that were appended and not written down.
// When the job is resumed these are met again, and are known by what their
// users' first event says: the job and the line that it came from.

// window is how many chunks may be under way.
const window = 6

// row is a line on its way to its answer.
type row struct {
	line     int64
	cmd      domain.ImportHuman
	human    domain.Human
	warnings []domain.Warning
	facts    domain.Facts
	// stream is the user that the line makes, if it makes one.
	stream string
	// wants are what no two lines may have at once.
	wants    []domain.Claim
	deferred bool
	// found is the user that is there already, when the line is to change one.
	found string
	// reserved is why the line may not give anybody its user name, when it may
	// still be about a user who has it.
	reserved error
	// owned says that the line's user owns something: so it is alive.
	owned bool

	verdict verdict
	err     *domain.Error
	user    string
	result  eventstore.Result
	passkey *domain.Code
}

func (w *row) fail(err error) {
	w.verdict, w.err = failed, domain.AsError(err)
}

// lineRefusedError is about one line only.
type lineRefusedError struct{ reason *domain.Error }

func lineError(message string) error {
	return lineRefusedError{&domain.Error{Kind: domain.KindInvalidArgument, Message: message}}
}

func (e lineRefusedError) Error() string { return e.reason.Error() }
func (e lineRefusedError) Unwrap() error { return e.reason }

func isLineError(err error) bool {
	var e lineRefusedError
	return errors.As(err, &e)
}

type forecastOf = source.Forecast

// Run is one call's work on a job. It belongs to the call's goroutine.
type Run struct {
	jobs   *Jobs
	caller Caller
	opts   Options
	policy domain.Policy
	began  time.Time
	// id and startedAt are the job's; job is what is known of it, and belongs
	// to whoever writes answers down.
	id        string
	startedAt time.Time
	job       Job
	// recorded is how many lines had their answers when the call began, and
	// doubt whether lines behind them may have been appended.
	recorded int64
	doubt    bool
	lineKey  []byte
	secrets  *jobSecrets

	stop     context.CancelCauseFunc // ends the call before its time
	stopping context.Context

	connMu  sync.Mutex    // guards conn's use
	conn    *pgxpool.Conn // holds the job's lock; what is written through it is fenced by it
	locked  bool
	closing sync.Once
	counted time.Time // up to when the job's seconds have been counted

	heldMu sync.Mutex           // guards held
	held   map[domain.Claim]int // wanted by lines that are not settled

	hashing chan struct{} // bounds this job's share of the pool of hashes
	bounds  boundCache
}

var (
	errShutdown   = domain.NewError(domain.KindUnavailable, "MUSTER-shutdown", "The service is shutting down, repeat the call with the same job ID")
	errOtherLines = domain.NewError(domain.KindFailedPrecondition, "MUSTER-otherlines", "Job was begun with other lines")
	// errShort: the input ended within lines that have their answers already.
	errShort      = errOtherLines.Because(errors.New("too few lines"))
	errBrokenBody = domain.NewError(domain.KindInvalidArgument, "MUSTER-body", "Body ended early or cannot be decompressed, repeat the call with the same job ID")
)

// Stream takes the lines of in and answers them on out, each Write of which
// must reach the caller. It returns when the last answer has been handed over,
// or when the caller is gone. interrupt has to make a pending Read of in return;
// it is called when the work has to end before the input does.
//
// Every answer, and every failure, goes to out; the error is for the log only.
func (r *Run) Stream(ctx context.Context, in io.Reader, out io.Writer, interrupt func()) error {
	defer r.Close()
	r.counted = r.began
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.stopping, func() { cancel(context.Cause(r.stopping)) })()
	// What is under way when the caller goes is seen through, for a while.
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(20*time.Second, cut) })()

	answers := newSpool(r.jobs.TempDir, out)
	lines := newIntake(in, r.opts.FromLine-1)
	lines.bound, lines.control = func(line int64) (int64, error) { return r.bound(work, line) }, func(n int64, line []byte) error { return r.control(work, n, line) }

	var all sync.WaitGroup
	over := make(chan struct{})
	all.Go(func() { // interrupt is never called after Stream has returned
		select {
		case <-ctx.Done():
			lines.stop()
			interrupt()
		case <-over:
		}
	})
	all.Go(lines.run)
	var sent error
	all.Go(func() {
		if sent = answers.drain(); sent != nil {
			cancel(sent) // nobody reads the answers any more
		}
	})

	order := make(chan *chunk, window)
	slots := make(chan struct{}, window)
	var readErr error
	all.Go(func() {
		defer close(order)
		before := &chunk{registered: closedChannel, done: closedChannel}
		for {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			c, err := lines.take(func(c *chunk) bool { return c.first <= r.recorded })
			if c == nil {
				readErr = err
				return
			}
			c.registered, c.done = make(chan struct{}), make(chan struct{})
			previous := before
			before = c
			all.Go(func() { r.work(work, ctx, c, previous) })
			order <- c
		}
	})

	err := r.settleAll(work, order, slots, answers)
	if err != nil {
		cancel(err)
	}
	for c := range order { // whatever is still under way comes to its end
		<-c.done
		<-slots
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = context.Cause(ctx)
	}
	if readErr != nil && (err == nil || err == error(errShort)) { //nolint:errorlint // this one only: errOtherLines has the same id
		err = readErr
		if domainErr := (*domain.Error)(nil); !errors.As(err, &domainErr) {
			err = errBrokenBody.Because(readErr)
		}
	}
	if err == nil {
		err = r.finish(work)
	}
	tail := r.summary()
	if err != nil {
		tail = append(appendError(append([]byte(nil), `{"error":`...), domain.AsError(storeError(err))), "}\n"...)
	}
	_ = answers.write(tail)
	answers.close()
	lines.stop()
	close(over)
	if err != nil {
		interrupt()
	}
	all.Wait()
	return errors.Join(err, sent)
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// settleAll writes the chunks' answers down, in order, and sends them. What is
// ready goes in one transaction.
func (r *Run) settleAll(ctx context.Context, order <-chan *chunk, slots <-chan struct{}, answers *spool) error {
	var ready []*chunk
	var pending *chunk
	for {
		c := pending
		pending = nil
		if c == nil {
			var open bool
			if c, open = <-order; !open {
				return nil
			}
		}
		<-c.done
		ready = append(ready[:0], c)
	more:
		for len(ready) < window {
			select {
			case next, open := <-order:
				if !open {
					break more
				}
				select {
				case <-next.done:
					ready = append(ready, next)
				default:
					pending = next
					break more
				}
			default:
				break more
			}
		}
		good := ready
		var failure error
		for i, c := range ready {
			if c.err != nil {
				good, failure = ready[:i], c.err
				break
			}
		}
		if err := r.record(ctx, good); err != nil {
			return err
		}
		for _, c := range good {
			sent := c.sent
			if sent == nil {
				sent = c.answers
			}
			if err := answers.write(sent); err != nil {
				return err
			}
		}
		for range ready {
			<-slots
		}
		if failure != nil {
			if pending != nil {
				<-pending.done
				<-slots
			}
			return failure
		}
	}
}

// work sees a chunk through to its answers.
func (r *Run) work(ctx, call context.Context, c, previous *chunk) {
	defer close(c.done)
	again := c.last <= r.recorded
	c.digest = r.digest(c)
	if again {
		<-previous.registered
		close(c.registered)
		<-previous.done
		if c.err = previous.err; c.err == nil {
			c.err = r.repeat(ctx, c)
		}
		return
	}
	policy := r.policy
	failed := r.jobs.Importer.reserve(ctx, r.caller.Org, &policy)
	if failed == nil {
		r.prepare(c, policy)
	}
	<-previous.registered
	r.register(c)
	close(c.registered)
	switch {
	case failed != nil:
		<-previous.done
		c.err = failed
	case r.opts.DryRun:
		<-previous.done
		if c.err = previous.err; c.err == nil {
			c.err = r.rehearse(ctx, c)
		}
	default:
		c.err = r.place(ctx, call, undecidedOf(c.rows, false))
		<-previous.done
		if c.err == nil {
			c.err = previous.err
		}
		if c.err == nil {
			c.err = r.placeDeferred(ctx, call, undecidedOf(c.rows, true))
		}
	}
	r.release(c)
	if c.err == nil {
		r.answer(c)
	}
}

func undecidedOf(rows []row, deferred bool) []*row {
	var out []*row
	for i := range rows {
		if w := &rows[i]; w.verdict == undecided && w.deferred == deferred {
			out = append(out, w)
		}
	}
	return out
}

// digest is a keyed hash of a chunk's lines.
func (r *Run) digest(c *chunk) []byte {
	mac := hmac.New(sha256.New, r.lineKey)
	mac.Write(c.data)
	var n [8]byte
	for _, s := range c.spans {
		binary.BigEndian.PutUint32(n[:], uint32(s.to))            // #nosec G115 -- a chunk is a few MiB
		binary.BigEndian.PutUint32(n[4:], uint32(s.line-c.first)) // #nosec G115
		mac.Write(n[:])
	}
	return mac.Sum(nil)
}

// prepare decodes and checks a chunk's lines.
func (r *Run) prepare(c *chunk, policy domain.Policy) {
	text := string(c.data) // the commands' strings are parts of it
	at := r.jobs.Importer.Now()
	c.rows = make([]row, 0, len(c.spans))
	for i := range c.spans {
		s := &c.spans[i]
		if s.control && s.err == nil {
			continue
		}
		c.rows = append(c.rows, row{line: s.line})
		w := &c.rows[len(c.rows)-1]
		if s.err != nil {
			w.fail(s.err)
			continue
		}
		if err := r.prepareRow(w, policy, text[s.from:s.to], at); err != nil {
			w.fail(err)
		}
	}
}

func (r *Run) prepareRow(w *row, policy domain.Policy, text string, at time.Time) error {
	p, err := parseLine(text)
	if err != nil {
		return err
	}
	if err := p.edge(); err != nil {
		return err
	}
	w.cmd = p.cmd
	w.cmd.OldSystem = r.secrets.verifier.URL != ""
	w.cmd.Silent, w.cmd.PasskeyOrigin = r.opts.Notify != NotifyInit, r.opts.Origin
	w.human, w.warnings, err = w.cmd.Normalise(policy)
	if errors.Is(err, domain.ErrDomainReserved) && (r.opts.OnConflict != ConflictFail || r.doubt) {
		// Whose name it is already keeps it, and a line that was let in before
		// is not judged anew.
		w.reserved = err
		if w.human, w.warnings, err = w.cmd.Normalise(r.policy); err != nil {
			err = w.reserved
		}
	}
	if err != nil {
		return err
	}
	if w.human.PasswordHash != "" {
		var ok bool
		if w.human.PasswordHash, ok = r.secrets.qualify(w.human.PasswordHash, w.line); !ok {
			return domain.ErrHashUnsupported
		}
	}
	w.facts = domain.Facts{Org: r.caller.Org, At: at, Job: r.id, Line: w.line}
	w.stream = w.human.UserID
	if w.stream == "" {
		w.stream = r.userID(w.line)
		w.facts.UserID = w.stream
	}
	w.wants = w.human.Claims()
	if w.human.UserID != "" {
		w.wants = append(w.wants, domain.Claim{Kind: "stream", Value: w.stream})
	}
	return nil
}

// userID is the id of the user whom a line makes: the same whenever the line is
// met again, in about the order of the lines, and not to be guessed.
func (r *Run) userID(line int64) string {
	var id ulid.ULID
	at := ulid.Timestamp(r.startedAt) + uint64(line)>>6 // #nosec G115 -- lines count from 1
	if err := id.SetTime(at); err != nil {
		panic("importer: the clock is beyond the year 10889")
	}
	mac := hmac.New(sha256.New, r.lineKey)
	mac.Write(binary.BigEndian.AppendUint64(append([]byte(nil), "user id"...), uint64(line))) // #nosec G115
	copy(id[6:], mac.Sum(nil))
	return id.String()
}

// register claims what a chunk's lines want, and defers those that want what
// an unsettled line before them wants.
func (r *Run) register(c *chunk) {
	r.heldMu.Lock()
	defer r.heldMu.Unlock()
	for i := range c.rows {
		w := &c.rows[i]
		if w.verdict != undecided {
			continue
		}
		for _, claim := range w.wants {
			w.deferred = w.deferred || r.held[claim] > 0
		}
		for _, claim := range w.wants {
			r.held[claim]++
		}
	}
}

func (r *Run) release(c *chunk) {
	r.heldMu.Lock()
	defer r.heldMu.Unlock()
	for i := range c.rows {
		for _, claim := range c.rows[i].wants {
			if r.held[claim]--; r.held[claim] <= 0 {
				delete(r.held, claim)
			}
		}
	}
}

// placeDeferred settles deferred lines: as many at a time as do not want the
// same as each other.
func (r *Run) placeDeferred(ctx, call context.Context, rows []*row) error {
	for len(rows) > 0 {
		wanted := map[domain.Claim]bool{}
		n := 0
		for ; n < len(rows); n++ {
			clash := false
			for _, claim := range rows[n].wants {
				clash = clash || wanted[claim]
			}
			if clash {
				break
			}
			for _, claim := range rows[n].wants {
				wanted[claim] = true
			}
		}
		if err := r.place(ctx, call, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// place settles lines none of which wants what another wants. The error is
// about the job, not about a line.
func (r *Run) place(ctx, call context.Context, rows []*row) error {
	if r.opts.OnConflict != ConflictFail || r.doubt {
		if err := r.lookUp(ctx, rows); err != nil {
			return err
		}
	}
	var plain, ready []*row
	for _, w := range rows {
		switch {
		case w.verdict != undecided:
		case w.human.NeedsHash():
			plain = append(plain, w)
		default:
			ready = append(ready, w)
		}
	}
	var g errgroup.Group
	if len(plain) > 0 {
		g.Go(func() error {
			if err := r.hash(call, plain); err != nil {
				return err
			}
			return r.append(ctx, plain)
		})
	}
	g.Go(func() error { return r.append(ctx, ready) })
	return g.Wait()
}

// hash hashes plain passwords, in the pool that all imports share. It ends with
// the call: it may take long.
func (r *Run) hash(call context.Context, rows []*row) error {
	g, call := errgroup.WithContext(call)
	for _, w := range rows {
		select {
		case r.hashing <- struct{}{}:
		case <-call.Done():
			return errors.Join(g.Wait(), context.Cause(call))
		}
		g.Go(func() error {
			defer func() { <-r.hashing }()
			hash, err := r.jobs.Importer.Passwords.Hash(call, w.human.Password)
			var refused *password.Error
			if errors.As(err, &refused) {
				w.fail(domain.NewError(domain.KindInvalidArgument, "MUSTER-plain", "Password cannot be hashed").OnField("password"))
				return nil
			}
			w.facts.PasswordHash = hash
			return err
		})
	}
	return g.Wait()
}

func newHashing() chan struct{} { return make(chan struct{}, runtime.GOMAXPROCS(0)) }

// attempts bounds how often a line is decided anew because others were faster.
const attempts = 5

// append commits lines and judges what the store says.
func (r *Run) append(ctx context.Context, rows []*row) error {
	for n := 0; n < attempts; n++ {
		var todo []*row
		var appends []eventstore.Append
		for _, w := range rows {
			if w.verdict != undecided {
				continue
			}
			a, err := r.decide(ctx, w)
			if err != nil {
				if !ours(err) {
					return err
				}
				w.fail(err)
				continue
			}
			if a != nil {
				todo, appends = append(todo, w), append(appends, *a)
			}
		}
		if len(todo) == 0 {
			return nil
		}
		var again []*row
		for i, out := range r.jobs.Importer.Store.AppendMany(ctx, appends) {
			w := todo[i]
			var conflict *eventstore.ConflictError
			var sequence *eventstore.SequenceError
			switch {
			case out.Err == nil && w.found != "":
				w.verdict, w.user, w.result = updated, w.found, out.Result
			case out.Err == nil:
				w.verdict, w.user, w.result = created, w.stream, out.Result
				if w.human.RequestPasskey {
					w.passkey = &w.facts.Passkey
				}
			case errors.As(out.Err, &conflict), errors.As(out.Err, &sequence):
				switch {
				case n == attempts-1, r.opts.OnConflict == ConflictFail && w.human.UserID == "" && !(r.doubt && sequence != nil):
					w.fail(storeError(out.Err))
				default:
					// What is in the way is looked up; a chosen id comes before
					// names, whichever the store met first.
					w.found = ""
					again = append(again, w)
				}
			case errors.Is(out.Err, eventstore.ErrUnavailable), ctx.Err() != nil:
				return out.Err
			default:
				w.fail(storeError(out.Err))
			}
		}
		if len(again) > 0 {
			if err := r.lookUp(ctx, again); err != nil {
				return err
			}
		}
		rows = again
	}
	return nil
}

// ours reports whether an error is about a line and not about the service.
func ours(err error) bool {
	var e *domain.Error
	return errors.As(err, &e) && e.Kind != domain.KindInternal && e.Kind != domain.KindUnavailable
}

// decide makes what has to be appended for a line; nil for nothing.
func (r *Run) decide(ctx context.Context, w *row) (*eventstore.Append, error) {
	if w.found != "" {
		return r.decideUpdate(ctx, w)
	}
	if w.reserved != nil {
		return nil, w.reserved
	}
	if w.facts.Init.Secret == "" && w.facts.Email.Secret == "" && w.facts.Phone.Secret == "" && w.facts.Passkey.Secret == "" {
		if err := r.jobs.Importer.drawCodes(w.human.Codes(), &w.facts); err != nil {
			return nil, err
		}
	}
	a := toAppend(w.human.Import(w.facts), r.caller.ID, w.facts.At)
	return &a, nil
}

// decideUpdate makes what has to be appended to the user who is there already.
func (r *Run) decideUpdate(ctx context.Context, w *row) (*eventstore.Append, error) {
	store := r.jobs.Importer.Store
	once := eventstore.Idempotency{Key: "import\x00" + r.id + "\x00" + strconv.FormatInt(w.line, 10)}
	if r.doubt {
		result, ok, err := store.Repeat(ctx, once)
		if err != nil {
			return nil, err
		}
		if ok {
			w.verdict, w.user, w.result = updated, w.found, result
			return nil, nil
		}
	}
	u, err := r.user(ctx, w.found)
	if err != nil {
		return nil, err
	}
	if !u.Exists() {
		return nil, errUserIDTaken
	}
	h := &w.human
	if w.reserved != nil && h.UserName != u.UserName {
		return nil, w.reserved
	}
	if err := r.jobs.Importer.drawCodes(domain.CodeNeeds{
		Init:    u.State == domain.StateInitial,
		Email:   !h.Email.Verified,
		Phone:   h.Phone != nil && !h.Phone.Verified,
		Passkey: h.RequestPasskey,
	}, &w.facts); err != nil {
		return nil, err
	}
	d, err := u.Update(*h, w.facts)
	if err != nil {
		return nil, err
	}
	if len(d.Events) == 0 {
		w.verdict, w.user = skipped, w.found
		return nil, nil
	}
	a := toAppend(d, r.caller.ID, w.facts.At)
	a.Idempotency = &once
	return &a, nil
}

// user reads a user from the log.
func (r *Run) user(ctx context.Context, id string) (*domain.User, error) {
	return r.jobs.user(ctx, r.caller.Org, id)
}

// lookUp finds the users who are there already for lines: settles those that
// skip them, and says which user each other line has found.
func (r *Run) lookUp(ctx context.Context, rows []*row) error {
	if len(rows) == 0 {
		return nil
	}
	store := r.jobs.Importer.Store
	var claims []eventstore.Claim
	var streams []string
	for _, w := range rows {
		for _, c := range w.wants {
			if c.Kind != "stream" {
				claims = append(claims, eventstore.Claim(c))
			}
		}
		if r.doubt || w.human.UserID != "" {
			streams = append(streams, w.stream)
		}
	}
	owners, err := store.Owners(ctx, claims)
	if err != nil {
		return err
	}
	var heads map[string]eventstore.StreamHead
	if len(streams) > 0 {
		if heads, err = store.Heads(ctx, streams); err != nil {
			return err
		}
	}
	for _, w := range rows {
		there, own := heads[w.stream]
		taken := errUserIDTaken
		for _, c := range w.wants {
			if c.Kind == "stream" {
				continue
			}
			if owner := owners[0]; there.Stream == "" && owner.Stream != "" {
				there, taken = owner, c.ConflictError()
			}
			w.owned = w.owned || owners[0].Stream == w.stream
			owners = owners[1:]
		}
		switch {
		case there.Stream == "":
			continue
		case own && r.doubt:
			mine, err := r.recognise(ctx, w)
			if err != nil {
				return err
			}
			if mine {
				continue
			}
		}
		if own && there.Stream == w.stream && r.opts.OnConflict == ConflictSkip && !w.owned {
			u, err := r.user(ctx, w.stream)
			if err != nil {
				return err
			}
			if !u.Exists() {
				w.fail(errUserIDTaken)
				continue
			}
		}
		switch {
		case r.opts.OnConflict == ConflictFail || there.Org != r.caller.Org:
			// What belongs to another organisation is nobody's to change, or
			// to hear more of.
			w.fail(taken)
		case r.opts.OnConflict == ConflictSkip:
			w.verdict, w.user = skipped, there.Stream
		default:
			w.found = there.Stream
		}
	}
	return nil
}

// recognise tells whether the user whom a line would make was made by this very
// line before, in a call that broke off, and then gives its answer.
func (r *Run) recognise(ctx context.Context, w *row) (bool, error) {
	store := r.jobs.Importer.Store
	events, err := store.ReadStream(ctx, w.stream, 0)
	if err != nil || len(events) == 0 || events[0].Type != domain.TypeHumanAdded {
		return false, err
	}
	e, err := domain.Decode(events[0].Type, events[0].Schema, events[0].Data, nil)
	if err != nil {
		return false, err
	}
	added := e.(domain.HumanAdded) //nolint:errcheck // found by its type
	if added.Job != r.id || added.Line != w.line {
		return false, nil
	}
	// One append's events share their time: those behind are later life.
	n := 1
	for n < len(events) && events[n].At.Equal(events[0].At) && events[n].Actor == events[0].Actor {
		n++
	}
	last := events[n-1]
	w.verdict, w.user = created, w.stream
	w.result = eventstore.Result{Stream: w.stream, First: 1, Last: last.Sequence, Position: last.Position, Epoch: last.Epoch, At: last.At}
	if w.human.RequestPasskey {
		w.passkey, err = r.passkeyOf(ctx, events[:n])
	}
	return true, err
}

func (r *Run) passkeyOf(ctx context.Context, events []eventstore.Event) (*domain.Code, error) {
	for i := range events {
		if events[i].Type != domain.TypePasskeyRegistrationRequested {
			continue
		}
		if err := r.jobs.Importer.Store.Open(ctx, events[i:i+1]); err != nil {
			return nil, err
		}
		e, err := domain.Decode(events[i].Type, events[i].Schema, events[i].Data, events[i].Personal)
		if err != nil {
			return nil, err
		}
		v := e.(domain.PasskeyRegistrationRequested) //nolint:errcheck // found by its type
		if v.Secret == "" {                          // erased
			return nil, nil
		}
		return &domain.Code{ID: v.CodeID, Secret: v.Secret, Lifetime: v.Lifetime}, nil
	}
	return nil, nil
}

// answer writes a settled chunk's answers and counts.
func (r *Run) answer(c *chunk) {
	links := false
	for i := range c.rows {
		w := &c.rows[i]
		switch w.verdict {
		case created:
			c.created++
		case updated:
			c.updated++
		case skipped:
			c.skipped++
		default:
			c.failed++
		}
		if w.verdict == created || w.verdict == updated {
			c.tally.Add(w.cmd)
		}
		links = links || w.passkey != nil
		c.answers = r.appendAnswer(c.answers, w)
	}
	if !links {
		return
	}
	answers := c.answers
	for i := range c.rows {
		w := &c.rows[i]
		n := bytes.IndexByte(answers, '\n') + 1
		if w.passkey == nil {
			c.sent = append(c.sent, answers[:n]...)
		} else {
			c.sent = appendLink(c.sent, answers[:n], domain.PasskeyLink(r.opts.Origin, w.user, r.caller.Org, *w.passkey), w.passkey.Lifetime)
		}
		answers = answers[n:]
	}
}

// position is the highest that a chunk's lines came to.
func (c *chunk) position() int64 {
	var p eventstore.Position
	for i := range c.rows {
		p = max(p, c.rows[i].result.Position)
	}
	return int64(p)
}
