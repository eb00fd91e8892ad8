package handlers

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/importer"
)

// bulkPatience is how long an import waits for a caller who neither sends nor
// reads.
const bulkPatience = 5 * time.Minute

// maxBulkWindow bounds what a zstd body may make the service hold, in bytes.
const maxBulkWindow = 32 << 20

var (
	errEncoding = domain.NewError(domain.KindInvalidArgument, "MUSTER-encoding", "Content-Encoding must be gzip, zstd or identity")
	errQuery    = domain.NewError(domain.KindInvalidArgument, "MUSTER-query", "A query parameter has an invalid value")
)

// verifyHeader is what goes along to a job's verification URL as Authorization.
const verifyHeader = "Muster-Verify-Authorization"

// ServeBulk is Deps.Bulk over jobs.
//
// The query's parameters are dryRun, onConflict, notify, verifyURL, jobId and
// fromLine, as importer.Options has them. The answer's status is decided before the first
// line is read; what ends a job early is in the answer's last line.
func ServeBulk(jobs *importer.Jobs, log *slog.Logger) func(http.ResponseWriter, *http.Request, importer.Caller, string) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(w http.ResponseWriter, r *http.Request, caller importer.Caller, origin string) error {
		opts, err := bulkOptions(r)
		if err != nil {
			return err
		}
		opts.Origin = origin
		body, err := bulkBody(r)
		if err != nil {
			return err
		}
		defer body.Close()
		run, err := jobs.Begin(r.Context(), caller, opts)
		if err != nil {
			return err
		}
		s := &bulkStream{w: w, rc: http.NewResponseController(w), body: body}
		if r.ProtoMajor == 1 {
			if err := s.rc.EnableFullDuplex(); err != nil {
				run.Close()
				return err
			}
			// A read that was interrupted leaves a connection behind that is no
			// good for another request.
			w.Header().Set("Connection", "close")
			if r.Header.Get("Expect") != "" {
				_, _ = r.Body.Read(nil) // sends 100 Continue, which has to come before the answer's header
			}
		}
		s.touch()
		h := w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Muster-Job", run.JobID())
		h.Set("X-Accel-Buffering", "no")
		w.WriteHeader(http.StatusOK)
		_ = s.rc.Flush() // who is gone is noticed at the first answer
		if err := run.Stream(r.Context(), s, s, s.interrupt); err != nil {
			e := asError(err)
			log.LogAttrs(r.Context(), slog.LevelWarn, "an import broke off", slog.String("job", run.JobID()), slog.String("id", e.ID), slog.Int("code", int(e.Kind)))
		}
		return nil
	}
}

func bulkOptions(r *http.Request) (importer.Options, error) {
	q := r.URL.Query()
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	opts := importer.Options{
		JobID: q.Get("jobId"), OnConflict: importer.Conflict(q.Get("onConflict")), Notify: importer.Notify(q.Get("notify")), Remote: host,
	}
	opts.VerifyURL, opts.VerifyAuthorization = q.Get("verifyURL"), r.Header.Get(verifyHeader)
	if v := q.Get("dryRun"); v != "" {
		if opts.DryRun, err = strconv.ParseBool(v); err != nil {
			return opts, errQuery
		}
	}
	if v := q.Get("fromLine"); v != "" {
		if opts.FromLine, err = strconv.ParseInt(v, 10, 64); err != nil || opts.FromLine < 1 {
			return opts, errQuery
		}
	}
	return opts, nil
}

// bulkBody undoes the body's compression.
func bulkBody(r *http.Request) (io.ReadCloser, error) {
	switch strings.ToLower(r.Header.Get("Content-Encoding")) {
	case "", "identity":
		return io.NopCloser(r.Body), nil
	case "gzip", "x-gzip":
		return &lazyReader{open: func() (io.ReadCloser, error) { return gzip.NewReader(r.Body) }}, nil
	case "zstd":
		return &lazyReader{open: func() (io.ReadCloser, error) {
			z, err := zstd.NewReader(r.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxBulkWindow), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		}}, nil
	}
	return nil, errEncoding
}

// lazyReader opens a decompressor, which reads its header at once, with the
// first Read: before that the answer has to have begun.
type lazyReader struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
	err  error
}

func (l *lazyReader) Read(b []byte) (int, error) {
	if l.r == nil && l.err == nil {
		l.r, l.err = l.open()
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(b)
}

func (l *lazyReader) Close() error {
	if l.r == nil {
		return nil
	}
	return l.r.Close()
}

// bulkStream is a request's body and its answer, each of which may stand still
// for as long as the other moves.
type bulkStream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	body io.Reader

	mu          sync.Mutex // guards what follows
	touched     time.Time
	interrupted bool
}

func (s *bulkStream) Read(b []byte) (int, error) {
	n, err := s.body.Read(b)
	s.touch()
	return n, err
}

func (s *bulkStream) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err == nil {
		err = s.rc.Flush()
	}
	s.touch()
	return n, err
}

// touch puts both deadlines off: something has moved.
func (s *bulkStream) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.interrupted || now.Sub(s.touched) < time.Second {
		return
	}
	s.touched = now
	_ = s.rc.SetReadDeadline(now.Add(bulkPatience))
	_ = s.rc.SetWriteDeadline(now.Add(bulkPatience))
}

// interrupt makes a pending Read return; answers can still be written, for a
// while.
func (s *bulkStream) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = true
	_ = s.rc.SetReadDeadline(time.Unix(1, 0))
	_ = s.rc.SetWriteDeadline(time.Now().Add(30 * time.Second))
}
