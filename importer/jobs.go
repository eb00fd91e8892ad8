package importer

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/importer/source"
)

// Conflict says what becomes of a line whose user is there already.
type Conflict string

// What becomes of a line whose user is there already.
const (
	ConflictFail   Conflict = "fail"
	ConflictSkip   Conflict = "skip"
	ConflictUpdate Conflict = "update"
)

// Notify says who hears of an import.
type Notify string

// Who hears of an import: nobody, or those who have to complete their account.
const (
	NotifyNone Notify = "none"
	NotifyInit Notify = "init"
)

// Options are what a call asks of a job. The zero value of a field takes the
// default, except for the addresses.
type Options struct {
	// JobID is the caller's name for the job: 1 to 40 letters, digits, dots,
	// dashes and underscores, the first one a letter or a digit. Empty: one is
	// made. Repeating a call with the same id resumes the job.
	JobID string
	// FromLine is the number of the input's first line; default 1. It may be
	// beyond 1 only when all lines before it have had their answers.
	FromLine int64
	// DryRun answers as usual and appends nothing.
	DryRun bool
	// OnConflict and Notify default to fail and none.
	OnConflict Conflict
	Notify     Notify
	// VerifyURL is where the old system checks a password, for those who come
	// without one that can be verified here: https, or http under localhost.
	// VerifyAuthorization is the header Authorization that goes along. Both are
	// sealed, and good for the job's users as long as one of them waits. A call
	// that resumes the job may leave them out.
	VerifyURL, VerifyAuthorization string
	// Origin is the scheme and host that links are built on, Remote the address
	// that the call came from.
	Origin, Remote string
}

// The failures of jobs.
var (
	ErrJobNotFound = domain.NewError(domain.KindNotFound, "MUSTER-job", "Import job not found")
	errJobID       = domain.NewError(domain.KindInvalidArgument, "MUSTER-jobid", "Job ID must be 1 to 40 letters, digits, dots, dashes or underscores")
	errJobTaken    = domain.NewError(domain.KindAlreadyExists, "MUSTER-jobtaken", "Job ID is in use")
	errJobOptions  = domain.NewError(domain.KindFailedPrecondition, "MUSTER-joboptions", "Job was begun with other options")
	errJobBusy     = domain.NewError(domain.KindAborted, "MUSTER-jobbusy", "Job is at work in another call, try again")
	errJobUndone   = domain.NewError(domain.KindFailedPrecondition, "MUSTER-jobundone", "Job has been undone")
	errJobDry      = domain.NewError(domain.KindFailedPrecondition, "MUSTER-jobdry", "Job was a dry run, there is nothing to undo")
	errTooManyJobs = domain.NewError(domain.KindResourceExhausted, "MUSTER-jobs", "Too many import jobs at a time, try again later")
	errFromLine    = domain.NewError(domain.KindFailedPrecondition, "MUSTER-fromline", "Lines before the first one have not had their answers")
	errOption      = domain.NewError(domain.KindInvalidArgument, "MUSTER-option", "onConflict must be fail, skip or update, notify must be none or init")
	errVerifyURL   = domain.NewError(domain.KindInvalidArgument, "MUSTER-verifyurl", "The verification URL must be absolute, https or under localhost, without user, password and fragment, and at most 2000 characters; its authorization visible characters")
	errSuperseded  = domain.NewError(domain.KindAborted, "MUSTER-superseded", "The call was repeated, the job goes on there")
)

var jobIDForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$`)

// Job is what is kept of an import of many.
type Job struct {
	ID  string `json:"id"`
	Org string `json:"resourceOwner"`
	// Actor is the id of the token that began it, Remote the address it came
	// from.
	Actor      string   `json:"actor"`
	Remote     string   `json:"remoteAddress"`
	DryRun     bool     `json:"dryRun"`
	OnConflict Conflict `json:"onConflict"`
	Notify     Notify   `json:"notify"`
	// State is running, finished or undone. A job whose call broke off is
	// running until it is resumed and comes to its end.
	State string `json:"state"`
	// Lines is up to which line there are answers.
	Lines   int64 `json:"lines"`
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
	Skipped int64 `json:"skipped"`
	Failed  int64 `json:"failed"`
	// Removed is how many users an undo has removed.
	Removed int64 `json:"removed,omitempty"`
	// Position is the highest position that the job's events have come to.
	Position int64 `json:"position"`
	// Seconds is how long the job was at work, over all its calls.
	Seconds    float64         `json:"seconds"`
	Forecast   source.Forecast `json:"forecast"`
	StartedAt  time.Time       `json:"startedAt"`
	UpdatedAt  time.Time       `json:"updatedAt"`
	FinishedAt *time.Time      `json:"finishedAt,omitempty"`
}

// Jobs runs imports of many and keeps what became of them. It is safe for
// concurrent use.
type Jobs struct {
	Importer *Importer
	// TempDir is where answers wait that a caller does not read; "" is the
	// system's.
	TempDir string
	Log     *slog.Logger

	slots chan struct{}

	mu      sync.Mutex // guards running
	running map[string]*Run
	ctx     context.Context // ended by Stop
	stop    context.CancelCauseFunc
}

// maxJobs is how many jobs one process works on at a time. Each holds a
// connection and some megabytes.
const maxJobs = 4

// NewJobs returns the jobs that run through i.
func NewJobs(i *Importer, log *slog.Logger) *Jobs {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Jobs{Importer: i, Log: log, slots: make(chan struct{}, maxJobs), running: map[string]*Run{}}
	j.ctx, j.stop = context.WithCancelCause(context.Background())
	return j
}

// Stop makes every job take no more lines, answer what it has taken, and end.
// It returns at once. Jobs are resumed by repeating their calls.
func (j *Jobs) Stop() { j.stop(errShutdown) }

// Begin begins a job, or takes one up again, for one call. The caller must call
// Stream or Close. Errors are *domain.Error.
func (j *Jobs) Begin(ctx context.Context, caller Caller, opts Options) (*Run, error) {
	opts.FromLine = max(opts.FromLine, 1)
	if opts.OnConflict == "" {
		opts.OnConflict = ConflictFail
	}
	if opts.Notify == "" {
		opts.Notify = NotifyNone
	}
	switch {
	case opts.OnConflict != ConflictFail && opts.OnConflict != ConflictSkip && opts.OnConflict != ConflictUpdate,
		opts.Notify != NotifyNone && opts.Notify != NotifyInit:
		return nil, errOption
	case !verifierForm(opts):
		return nil, errVerifyURL
	case opts.JobID == "":
		opts.JobID = ulid.MustNew(ulid.Timestamp(j.Importer.Now()), j.Importer.Rand).String()
	case !jobIDForm.MatchString(opts.JobID):
		return nil, errJobID
	}
	if j.ctx.Err() != nil {
		return nil, errShutdown
	}
	r, err := j.hold(ctx, opts.JobID)
	if err != nil {
		return nil, storeError(err)
	}
	r.caller, r.opts = caller, opts
	if err := r.begin(ctx); err != nil {
		r.Close()
		return nil, storeError(err)
	}
	return r, nil
}

// hold takes the lock of a job. A call that is at work on it in this process is
// ended: its caller has called again.
func (j *Jobs) hold(ctx context.Context, id string) (*Run, error) {
	select {
	case j.slots <- struct{}{}:
	default:
		return nil, errTooManyJobs
	}
	r := &Run{jobs: j, began: time.Now(), held: map[domain.Claim]int{}, hashing: newHashing()}
	r.stopping, r.stop = context.WithCancelCause(j.ctx)
	j.mu.Lock()
	earlier := j.running[id]
	j.running[id] = r
	j.mu.Unlock()
	if earlier != nil {
		earlier.stop(errSuperseded)
	}
	r.id = id
	conn, err := j.Importer.Store.Pool().Acquire(ctx)
	if err != nil {
		r.Close()
		return nil, err
	}
	r.conn = conn
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		var got bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockOf(id)).Scan(&got); err != nil {
			r.Close()
			return nil, err
		}
		if got {
			r.locked = true
			return r, nil
		}
		if time.Since(r.began) > 30*time.Second {
			r.Close()
			return nil, errJobBusy
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			r.Close()
			return nil, ctx.Err()
		}
	}
}

func lockOf(job string) int64 {
	sum := sha256.Sum256([]byte("import job " + job))
	return int64(binary.BigEndian.Uint64(sum[:])) // #nosec G115 -- any 64 bits do
}

// Close gives the job's lock back. Stream does so by itself.
func (r *Run) Close() {
	r.closing.Do(func() {
		r.stop(nil)
		r.jobs.mu.Lock()
		if r.jobs.running[r.id] == r {
			delete(r.jobs.running, r.id)
		}
		r.jobs.mu.Unlock()
		if r.conn != nil {
			if r.locked {
				// A connection that cannot give its locks and tables back is
				// not used again.
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_, err := r.conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`)
				if err == nil && r.opts.DryRun {
					_, err = r.conn.Exec(ctx, `DROP TABLE IF EXISTS pg_temp.import_seen`)
				}
				if err != nil {
					_ = r.conn.Conn().Close(ctx)
				}
			}
			r.conn.Release()
		}
		<-r.jobs.slots
	})
}

// JobID is the job's id.
func (r *Run) JobID() string { return r.id }

var (
	//go:embed sql/job.sql
	sqlJob string
	//go:embed sql/jobs.sql
	sqlJobs string
	//go:embed sql/begin_job.sql
	sqlBeginJob string
	//go:embed sql/record_job.sql
	sqlRecordJob string
	//go:embed sql/record_chunks.sql
	sqlRecordChunks string
)

// begin makes the job's row, or reads it.
func (r *Run) begin(ctx context.Context) error {
	i := r.jobs.Importer
	_, err := r.conn.Exec(ctx, sqlBeginJob, r.opts.JobID, r.caller.Org, r.caller.ID, r.opts.Remote, r.opts.DryRun,
		string(r.opts.OnConflict), string(r.opts.Notify), i.Now())
	if err != nil {
		return err
	}
	if r.job, err = scanJob(r.conn.QueryRow(ctx, sqlJob, r.opts.JobID)); err != nil {
		return err
	}
	switch {
	case r.job.Org != r.caller.Org:
		return errJobTaken
	case r.job.DryRun != r.opts.DryRun || r.job.OnConflict != r.opts.OnConflict || r.job.Notify != r.opts.Notify:
		return errJobOptions
	case r.job.State == "undone":
		return errJobUndone
	}
	r.startedAt = r.job.StartedAt
	key := i.Store.Keys().ClaimHash(eventstore.Claim{Kind: "import_job", Value: r.id})
	r.lineKey = key[:]
	if r.opts.DryRun {
		// Nothing was done, so nothing has to be taken up again.
		if err := r.rehearsal(ctx); err != nil {
			return err
		}
	}
	if r.opts.FromLine > r.job.Lines+1 {
		return errFromLine
	}
	r.recorded = r.job.Lines
	if r.secrets, err = r.jobs.loadSecrets(ctx, r.id); err != nil {
		return err
	}
	if r.secrets.undone { // an undo that ended before the job's row said so
		return errJobUndone
	}
	if err := r.verifier(); err != nil {
		return err
	}
	r.policy = i.Policy
	r.policy.Recognise = r.secrets.recognise
	if r.opts.DryRun {
		return nil
	}
	// The stream's first event is the mark that lines may have been appended.
	r.doubt = r.secrets.begun
	if r.doubt {
		return nil
	}
	begun := []domain.Event{domain.ImportStarted{
		OnConflict: string(r.opts.OnConflict), Notify: string(r.opts.Notify), Remote: r.opts.Remote,
	}}
	if r.secrets.verifier.URL != "" {
		begun = append(begun, domain.ImportVerifierAdded(r.secrets.verifier))
	}
	return r.event(ctx, eventstore.NoStream, begun...)
}

// event appends to the job's own stream.
func (r *Run) event(ctx context.Context, expected eventstore.Expected, facts ...domain.Event) error {
	_, err := r.jobs.Importer.Store.Append(ctx, r.appendix(expected, r.jobs.Importer.Now(), facts...))
	return err
}

func (r *Run) appendix(expected eventstore.Expected, at time.Time, facts ...domain.Event) eventstore.Append {
	a := eventstore.Append{Stream: domain.ImportStream(r.id), Org: r.caller.Org, Actor: r.caller.ID, Expected: expected, At: at}
	for _, e := range facts {
		data, personal := domain.Encode(e)
		a.Events = append(a.Events, eventstore.NewEvent{Type: e.Type(), Schema: e.Schema(), Data: data, Personal: personal})
	}
	return a
}

// conclude puts into the log what has become of the job: ImportFinished or
// ImportUndone. It does so before the job's row says it. When the process dies
// between the two, or died there under a program that had it the other way
// round, the call that is repeated finds what is missing and makes up for it:
// what the stream says last is not said again. Should two processes come to it
// at once, since the job's lock went with its connection, their append has one
// idempotency key, and is one.
func (r *Run) conclude(ctx context.Context, at time.Time, e domain.Event) error {
	store := r.jobs.Importer.Store
	said, err := store.ReadStream(ctx, domain.ImportStream(r.id), 0)
	if err != nil {
		return err
	}
	for _, ev := range slices.Backward(said) {
		if ev.Type != domain.TypeImportFinished && ev.Type != domain.TypeImportUndone {
			continue
		}
		last, err := domain.Decode(ev.Type, ev.Schema, ev.Data, nil)
		if err != nil {
			return err
		}
		if last == e {
			return nil
		}
		break
	}
	a := r.appendix(eventstore.Any, at, e)
	a.Idempotency = &eventstore.Idempotency{
		Key:     fmt.Sprintf("import job %s: %s after %d", r.id, e.Type(), len(said)),
		Request: append([]byte(e.Type()+" "), a.Events[0].Data...),
	}
	_, err = store.Append(ctx, a)
	return err
}

func scanJob(row pgx.Row) (Job, error) {
	var (
		j        Job
		forecast []byte
	)
	err := row.Scan(&j.ID, &j.Org, &j.Actor, &j.Remote, &j.DryRun, &j.OnConflict, &j.Notify, &j.State, &j.Lines, &j.Created, &j.Updated,
		&j.Skipped, &j.Failed, &j.Removed, &j.Position, &j.Seconds, &forecast, &j.StartedAt, &j.UpdatedAt, &j.FinishedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Job{}, ErrJobNotFound
	}
	if err == nil {
		err = json.Unmarshal(forecast, &j.Forecast)
	}
	return j, err
}

// packer and unpacker are safe for concurrent use in the ways used here.
var (
	packer, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
)

// record writes the answers of chunks down, with what they come to.
func (r *Run) record(ctx context.Context, chunks []*chunk) error {
	var first, last, created, failed []int64
	var digests, answers [][]byte
	next := r.job
	next.Forecast = source.Forecast{}
	next.Forecast.Merge(r.job.Forecast)
	for _, c := range chunks {
		if c.again {
			continue
		}
		first, last = append(first, c.first), append(last, c.last)
		created, failed = append(created, c.created), append(failed, c.failed)
		digests, answers = append(digests, c.digest), append(answers, packer.EncodeAll(c.answers, nil))
		next.Lines = c.last
		next.Created += c.created
		next.Updated += c.updated
		next.Skipped += c.skipped
		next.Failed += c.failed
		next.Position = max(next.Position, c.position())
		next.Forecast.Merge(c.tally)
	}
	if first == nil {
		return nil
	}
	next.State, next.FinishedAt = "running", nil
	next.Seconds += time.Since(r.counted).Seconds()
	r.counted = time.Now()
	forecast, err := json.Marshal(next.Forecast)
	if err != nil {
		return err
	}
	r.connMu.Lock()
	defer r.connMu.Unlock()
	batch := &pgx.Batch{} // one transaction
	batch.Queue(sqlRecordChunks, r.id, first, last, created, failed, digests, answers)
	batch.Queue(sqlRecordJob, r.id, next.State, next.Lines, next.Created, next.Updated, next.Skipped, next.Failed, next.Position,
		next.Seconds, forecast, r.jobs.Importer.Now(), nil)
	if err := r.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("writing answers down: %w", err)
	}
	r.job = next
	return nil
}

// finish marks the job as finished.
func (r *Run) finish(ctx context.Context) error {
	now := r.jobs.Importer.Now()
	next := r.job
	if !r.opts.DryRun {
		done := domain.ImportFinished{Created: next.Created, Updated: next.Updated, Skipped: next.Skipped, Failed: next.Failed}
		if err := r.conclude(ctx, now, done); err != nil {
			return err
		}
	}
	if r.job.State == "finished" {
		return nil
	}
	next.State, next.FinishedAt = "finished", &now
	forecast, err := json.Marshal(next.Forecast)
	if err != nil {
		return err
	}
	r.connMu.Lock()
	defer r.connMu.Unlock()
	if _, err := r.conn.Exec(ctx, sqlRecordJob, r.id, next.State, next.Lines, next.Created, next.Updated, next.Skipped, next.Failed, next.Position,
		next.Seconds, forecast, now, now); err != nil {
		return err
	}
	r.job = next
	return nil
}

// summary is the stream's last line.
func (r *Run) summary() []byte {
	j := &r.job
	line, err := json.Marshal(map[string]any{"summary": map[string]any{
		"jobId": j.ID, "dryRun": j.DryRun, "lines": j.Lines, "created": j.Created, "updated": j.Updated, "skipped": j.Skipped, "failed": j.Failed,
		"seconds": math.Round(1000*j.Seconds) / 1000, "position": j.Position, "forecast": j.Forecast,
	}})
	if err != nil {
		panic("importer: " + err.Error()) // numbers and names
	}
	return append(line, '\n')
}

// boundCache says where the chunks of earlier calls ended, a page at a time.
// It belongs to the intake.
type boundCache struct{ ends []int64 }

// bound returns the end of the chunk that a line was in; 0 for a new line.
func (r *Run) bound(ctx context.Context, line int64) (int64, error) {
	if line > r.recorded {
		return 0, nil
	}
	b := &r.bounds
	for len(b.ends) > 0 && b.ends[0] < line {
		b.ends = b.ends[1:]
	}
	if len(b.ends) > 0 {
		return b.ends[0], nil
	}
	rows, err := r.jobs.Importer.Store.Pool().Query(ctx, `SELECT last_line FROM import_chunks WHERE job = $1 AND last_line >= $2 ORDER BY first_line LIMIT 500`, r.id, line)
	if err != nil {
		return 0, err
	}
	if b.ends, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return 0, err
	}
	if len(b.ends) == 0 {
		return 0, errors.New("importer: a line has no answers although a later one has")
	}
	return b.ends[0], nil
}

// repeat gives the answers of an earlier call again.
func (r *Run) repeat(ctx context.Context, c *chunk) error {
	c.again = true
	if !c.bound {
		return errShort
	}
	var first int64
	var digest, packed []byte
	err := r.jobs.Importer.Store.Pool().QueryRow(ctx,
		`SELECT first_line, digest, answers FROM import_chunks WHERE job = $1 AND first_line <= $2 ORDER BY first_line DESC LIMIT 1`, r.id, c.first).
		Scan(&first, &digest, &packed)
	if err != nil {
		return err
	}
	// A call that begins within a chunk gets what is left of its answers.
	if first == c.first && !bytes.Equal(digest, c.digest) {
		return errOtherLines
	}
	answers, err := unpacker.DecodeAll(packed, nil)
	if err != nil {
		return err
	}
	for first < c.first && len(answers) > 0 && lineOf(answers) < c.first {
		answers = answers[bytes.IndexByte(answers, '\n')+1:]
	}
	c.answers = answers
	if bytes.Contains(c.data, []byte("asswordless")) {
		return r.repeatLinks(ctx, c)
	}
	return nil
}

// repeatLinks puts the passkey links into answers that are given again.
func (r *Run) repeatLinks(ctx context.Context, c *chunk) error {
	r.prepare(c, r.policy) // what was let in is not judged anew by who has which domain now
	at := map[int64]*row{}
	for i := range c.rows {
		at[c.rows[i].line] = &c.rows[i]
	}
	for answers := c.answers; len(answers) > 0; {
		n := bytes.IndexByte(answers, '\n') + 1
		answer := answers[:n]
		answers = answers[n:]
		w := at[lineOf(answer)]
		if w != nil && w.human.RequestPasskey && bytes.Contains(answer, []byte(`"outcome":"created"`)) {
			if _, err := r.recognise(ctx, w); err != nil {
				return err
			}
			if w.passkey != nil {
				c.sent = appendLink(c.sent, answer, domain.PasskeyLink(r.opts.Origin, w.user, r.caller.Org, *w.passkey), w.passkey.Lifetime)
				continue
			}
		}
		c.sent = append(c.sent, answer...)
	}
	return nil
}

// List returns the latest jobs of an organisation, at most 1,000, the latest
// first.
func (j *Jobs) List(ctx context.Context, org string) ([]Job, error) {
	rows, err := j.Importer.Store.Pool().Query(ctx, sqlJobs, org)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Job, error) { return scanJob(row) })
}

// Get returns a job. ErrJobNotFound.
func (j *Jobs) Get(ctx context.Context, org, id string) (Job, error) {
	job, err := scanJob(j.Importer.Store.Pool().QueryRow(ctx, sqlJob, id))
	if err == nil && job.Org != org {
		return Job{}, ErrJobNotFound
	}
	return job, err
}

// Answers calls each with the answers of a job's lines, some at a time, in
// order; with failures, only with those of lines that failed. ErrJobNotFound.
func (j *Jobs) Answers(ctx context.Context, org, id string, failures bool, each func(lines []byte) error) error {
	if _, err := j.Get(ctx, org, id); err != nil {
		return err
	}
	for after := int64(0); ; {
		// One chunk a query: nothing is held open while the caller writes.
		var packed []byte
		err := j.Importer.Store.Pool().QueryRow(ctx, `SELECT last_line, answers FROM import_chunks
			WHERE job = $1 AND first_line > $2 AND (failed > 0 OR NOT $3) ORDER BY first_line LIMIT 1`, id, after, failures).Scan(&after, &packed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		answers, err := unpacker.DecodeAll(packed, nil)
		if err != nil {
			return err
		}
		if failures {
			kept := answers[:0]
			for line := range bytes.Lines(answers) {
				if bytes.Contains(line[:min(len(line), 64)], []byte(`"outcome":"failed"`)) {
					kept = append(kept, line...)
				}
			}
			answers = kept
		}
		if err := each(answers); err != nil {
			return err
		}
	}
}

// user reads a user of an organisation from the log; one that does not exist
// when it is another's.
func (j *Jobs) user(ctx context.Context, org, id string) (*domain.User, error) {
	events, err := j.Importer.Store.ReadStream(ctx, id, 0)
	if err != nil || len(events) == 0 || events[0].Org != org {
		return domain.NewUser(id, org), err
	}
	if err := j.Importer.Store.Open(ctx, events); err != nil {
		return nil, err
	}
	u := domain.NewUser(id, org)
	for i := range events {
		e, err := domain.Decode(events[i].Type, events[i].Schema, events[i].Data, events[i].Personal)
		if err != nil {
			return nil, err
		}
		u.Apply(e)
	}
	return u, nil
}
