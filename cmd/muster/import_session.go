package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/importer/source"
)

// importSession sends a source's users to the service: a job an organisation.
// It keeps the lines that have no answer yet, and no others, so that it can send
// them again when a connection breaks, whatever it reads from.
type importSession struct {
	cmd     *importCmd
	a       *app
	show    *importProgress
	client  *http.Client
	resume  bool // the first job may exist already
	secrets password.Secrets
	told    int // how many of the secrets the present job knows
	report  *report
	links   *report

	// What has been answered, over all jobs.
	answered                          int64
	created, updated, skipped, failed int64
	unlinked                          int64
	unread                            atomic.Int64 // rows that could not be sent
	seconds                           float64
	forecast                          source.Forecast
	reasons                           map[string]int64
}

// sentLine is a line of the present job.
type sentLine struct {
	n    int64
	text []byte
	row  source.Record // without its command
	told bool          // a line of secrets
}

// run sends all there is.
func (s *importSession) run(ctx context.Context, src source.Reader) error {
	s.reasons = map[string]int64{}
	var pending *source.Record
	for jobs := 1; ; jobs++ {
		job, org := s.cmd.Job, s.cmd.Org
		if jobs > 1 {
			job += "." + strconv.Itoa(jobs)
		}
		if pending == nil {
			rec, err := s.next(ctx, src)
			if errors.Is(err, io.EOF) {
				if jobs == 1 { // nothing at all is a job too
					_, err = s.job(ctx, job, org, src, nil)
					return err
				}
				return nil
			}
			if err != nil {
				return err
			}
			pending = &rec
		}
		if org == "" {
			org = pending.Org
		}
		next, err := s.job(ctx, job, org, src, pending)
		if err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		pending = next
	}
}

// next returns the next row that is a person's; it reports the others.
func (s *importSession) next(ctx context.Context, src source.Reader) (source.Record, error) {
	for {
		rec, err := src.Next(ctx)
		if err != nil {
			return rec, err
		}
		switch {
		case rec.Err != nil:
			s.unread.Add(1)
			e := domain.AsError(rec.Err)
			if err := s.report.write(map[string]any{
				"row": rec.Row, "input": rec.Input, "inputLine": rec.Line, "outcome": "failed", "field": e.Field,
				"error": map[string]any{"code": e.Kind, "message": e.Error()},
			}); err != nil {
				return rec, err
			}
		case rec.Skipped != "":
			if err := s.report.write(map[string]any{"row": rec.Row, "input": rec.Input, "inputLine": rec.Line, "outcome": "left out", "reason": rec.Skipped}); err != nil {
				return rec, err
			}
		default:
			return rec, nil
		}
	}
}

// maxUnanswered bounds the lines, and their bytes, that wait for answers.
const (
	maxUnanswered      = 20_000
	maxUnansweredBytes = 64 << 20
)

// job sends the rows of one organisation, from first on, and returns the first
// row of another one.
func (s *importSession) job(ctx context.Context, id, org string, src source.Reader, first *source.Record) (next *source.Record, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := newLineQueue()
	s.told = 0
	have := int64(0)
	if s.resume {
		if have, err = s.recorded(ctx, id, org); err != nil {
			return nil, err
		}
	}
	q.first = have + 1
	var conversion sync.WaitGroup
	conversion.Go(func() {
		err := func() error {
			if first == nil {
				return nil
			}
			n := int64(0)
			put := func(l sentLine) error {
				n++
				if l.n = n; n <= have {
					return nil
				}
				return q.put(ctx, l)
			}
			for rec := *first; ; {
				if s.cmd.Org == "" && rec.Org != first.Org {
					next = &rec
					return nil
				}
				if len(s.secrets) > s.told {
					text, err := json.Marshal(map[string]any{"secrets": s.secrets})
					if err != nil {
						return err
					}
					s.told = len(s.secrets)
					if err := put(sentLine{text: append(text, '\n'), told: true}); err != nil {
						return err
					}
				}
				c := rec.Command
				if c.UserName == "" && c.UserNameFallback {
					c.UserName = c.Email.Address
				}
				text, err := source.AppendLine(nil, c)
				if err != nil { // a state that cannot be imported
					s.unread.Add(1)
					if err := s.report.write(map[string]any{"row": rec.Row, "input": rec.Input, "inputLine": rec.Line, "outcome": "failed", "field": "state",
						"error": map[string]any{"code": domain.KindInvalidArgument, "message": "This state cannot be imported"}}); err != nil {
						return err
					}
				} else {
					rec.Command = domain.ImportHuman{}
					if err := put(sentLine{text: text, row: rec}); err != nil {
						return err
					}
				}
				if rec, err = s.next(ctx, src); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
			}
		}()
		q.end(err)
		if err != nil {
			cancel(err)
		}
	})
	err = s.converse(ctx, id, org, q)
	if err != nil {
		cancel(err)
	}
	q.stop()
	conversion.Wait()
	// Whichever failed first has cancelled the other.
	switch {
	case q.err != nil && !errors.Is(q.err, context.Canceled):
		return nil, q.err
	case err != nil:
		return nil, err
	case q.err != nil:
		return nil, q.err
	}
	return next, nil
}

// refusedError is the service's no: there is no use in asking again.
type refusedError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *refusedError) Error() string { return e.Message }

// transient says that asking again may help.
func (e *refusedError) transient() bool {
	switch domain.Kind(e.Code) { // #nosec G115 -- a small number, or none of these
	case domain.KindUnavailable, domain.KindAborted, domain.KindResourceExhausted, domain.KindCanceled, domain.KindDeadlineExceeded:
		return true
	}
	return false
}

// patience is how often a call is repeated that brings no answer at all.
const patience = 12

// converse calls the service until the job has come to its end.
func (s *importSession) converse(ctx context.Context, id, org string, q *lineQueue) error {
	wait, silent := 200*time.Millisecond, 0
	for {
		before := q.first
		done, err := s.call(ctx, id, org, q)
		if done || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		var refused *refusedError
		if errors.As(err, &refused) && !refused.transient() {
			return err
		}
		if s.cmd.DryRun {
			return errRehearseAgain
		}
		if silent++; q.first > before {
			silent, wait = 0, 200*time.Millisecond
		}
		if silent >= patience {
			return fmt.Errorf("giving up after %d calls: %w", silent, err)
		}
		s.a.log.Warn("the import broke off and goes on", "error", err, "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, 15*time.Second)
	}
}

func (s *importSession) request(ctx context.Context, method, path, org string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(s.cmd.Server, "/")+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.cmd.Token)
	if org != "" {
		req.Header.Set("X-Zitadel-Orgid", org)
	}
	return req, nil
}

// recorded asks how many lines of a job have their answers.
func (s *importSession) recorded(ctx context.Context, id, org string) (int64, error) {
	if s.cmd.DryRun {
		return 0, nil
	}
	req, err := s.request(ctx, http.MethodGet, "/v1/imports/"+url.PathEscape(id), org, nil)
	if err != nil {
		return 0, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusNotFound:
		return 0, nil
	case http.StatusOK:
		var got struct {
			Import struct {
				Lines int64 `json:"lines"`
			} `json:"import"`
		}
		err := json.NewDecoder(res.Body).Decode(&got)
		return got.Import.Lines, err
	}
	return 0, refusal(res)
}

func refusal(res *http.Response) error {
	var e refusedError
	raw, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if json.Unmarshal(raw, &e) != nil || e.Code == 0 {
		e = refusedError{Code: int(domain.KindUnavailable), Message: "the service answers " + res.Status}
		if res.StatusCode < 500 {
			e.Code = int(domain.KindUnknown)
		}
	}
	return &e
}

// call makes one call: it sends what has no answer yet and takes answers until
// the summary (done), or until something breaks.
func (s *importSession) call(ctx context.Context, id, org string, q *lineQueue) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := url.Values{"jobId": {id}, "onConflict": {s.cmd.OnConflict}, "notify": {s.cmd.Notify}, "fromLine": {strconv.FormatInt(q.first, 10)}}
	if s.cmd.DryRun {
		query.Set("dryRun", "true")
	}
	if s.cmd.VerifyURL != "" {
		query.Set("verifyURL", s.cmd.VerifyURL)
	}
	body, w := io.Pipe()
	req, err := s.request(ctx, http.MethodPost, "/management/v1/users/human/_import?"+query.Encode(), org, body)
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if s.cmd.VerifyURL != "" && s.cmd.VerifyAuth != "" {
		req.Header.Set("Muster-Verify-Authorization", s.cmd.VerifyAuth)
	}
	var sending sync.WaitGroup
	sending.Go(func() { w.CloseWithError(q.send(ctx, w)) })
	defer func() { cancel(); _ = body.Close(); q.wake(); sending.Wait() }()
	res, err := s.client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false, refusal(res)
	}
	answers := bufio.NewReaderSize(res.Body, 64<<10)
	for {
		line, err := answers.ReadBytes('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return false, err
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			return false, fmt.Errorf("the service's answer cannot be read: %w", err)
		}
		switch {
		case a.Summary != nil:
			s.seconds += a.Summary.Seconds
			s.forecast.Merge(a.Summary.Forecast)
			return true, nil
		case a.Line == 0 && a.Error != nil:
			return false, a.Error
		}
		sent, ok := q.answered(a.Line)
		if !ok {
			continue
		}
		if sent.told {
			return false, a.Error // a secret was refused
		}
		if err := s.take(a, line, sent); err != nil {
			return true, err
		}
	}
}

// answer is a line of the service's.
type answer struct {
	Line    int64         `json:"line"`
	Outcome string        `json:"outcome"`
	UserID  string        `json:"userId"`
	Error   *refusedError `json:"error"`
	Link    *struct {
		Link string `json:"link"`
	} `json:"passwordlessRegistration"`
	Summary *struct {
		Seconds  float64         `json:"seconds"`
		Forecast source.Forecast `json:"forecast"`
	} `json:"summary"`
}

// take counts and reports an answer.
func (s *importSession) take(a answer, line []byte, sent sentLine) error {
	s.answered++
	switch a.Outcome {
	case "created":
		s.created++
	case "updated":
		s.updated++
	case "skipped":
		s.skipped++
	default:
		s.failed++
		reason := "?"
		if a.Error != nil {
			reason = a.Error.Message
			if len(reason) > 120 {
				reason = reason[:120] + "…"
			}
		}
		if _, known := s.reasons[reason]; known || len(s.reasons) < 50 {
			s.reasons[reason]++
		}
	}
	s.show.step(s.answered, s.failed+s.unread.Load())
	if a.Link != nil {
		if s.links == nil {
			s.unlinked++
		} else if err := s.links.write(map[string]any{"row": sent.row.Row, "userId": a.UserID, "link": a.Link.Link}); err != nil {
			return err
		}
	}
	if s.report == nil {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return err
	}
	delete(fields, "passwordlessRegistration") // a link lets people in
	for name, v := range map[string]any{"row": sent.row.Row, "input": sent.row.Input, "inputLine": sent.row.Line, "sourceWarnings": sent.row.Warnings} {
		if w, is := v.([]domain.Warning); is && len(w) == 0 {
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fields[name] = text
	}
	return s.report.write(fields)
}

// lineQueue holds the lines of a job that have no answer yet.
type lineQueue struct {
	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	lines   []sentLine
	bytes   int
	first   int64 // the number of the first line that has no answer
	next    int64 // the number of the next line to send
	ended   bool
	stopped bool
	err     error // why no more lines come
}

func newLineQueue() *lineQueue {
	q := &lineQueue{first: 1}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put waits for room.
func (q *lineQueue) put(ctx context.Context, l sentLine) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && ctx.Err() == nil && (len(q.lines) >= maxUnanswered || q.bytes >= maxUnansweredBytes) {
		q.changed.Wait()
	}
	if q.stopped || ctx.Err() != nil {
		return errors.Join(context.Canceled, context.Cause(ctx))
	}
	q.lines = append(q.lines, l)
	q.bytes += len(l.text)
	q.changed.Broadcast()
	return nil
}

func (q *lineQueue) end(err error) {
	q.mu.Lock()
	q.ended, q.err = true, err
	q.changed.Broadcast()
	q.mu.Unlock()
}

func (q *lineQueue) stop() {
	q.mu.Lock()
	q.stopped = true
	q.changed.Broadcast()
	q.mu.Unlock()
}

func (q *lineQueue) wake() {
	q.mu.Lock()
	q.changed.Broadcast()
	q.mu.Unlock()
}

// send writes the lines to a call, from the first without an answer on.
func (q *lineQueue) send(ctx context.Context, w io.Writer) error {
	buf := make([]byte, 0, 128<<10)
	q.mu.Lock()
	q.next = q.first
	q.mu.Unlock()
	for {
		buf = buf[:0]
		q.mu.Lock()
		for {
			at, _ := slices.BinarySearchFunc(q.lines, q.next, func(l sentLine, n int64) int { return int(l.n - n) })
			for ; at < len(q.lines) && len(buf) < 64<<10; at++ {
				buf = append(buf, q.lines[at].text...)
				q.next = q.lines[at].n + 1
			}
			if len(buf) > 0 || q.ended || q.stopped || ctx.Err() != nil {
				break
			}
			q.changed.Wait()
		}
		ended := q.ended && len(buf) == 0
		failed := q.err != nil || q.stopped || ctx.Err() != nil
		q.mu.Unlock()
		switch {
		case failed:
			return context.Canceled // breaks the call off: the job can be resumed
		case ended:
			return nil
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
}

// answered takes a line out, and those before it, which have no answer of
// their own.
func (q *lineQueue) answered(n int64) (sentLine, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var found sentLine
	ok := false
	k := 0
	for ; k < len(q.lines) && q.lines[k].n <= n; k++ {
		q.bytes -= len(q.lines[k].text)
		found, ok = q.lines[k], q.lines[k].n == n
		q.lines[k] = sentLine{}
	}
	q.lines = q.lines[k:]
	q.first = max(q.first, n+1)
	q.changed.Broadcast()
	found.text = nil
	return found, ok
}
