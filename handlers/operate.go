package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/projections"
	userv1 "github.com/muster-id/muster/proto/zitadel/user/v1"
)

// What an operator does from the command line goes over HTTP as well, for the
// installation's owner: looking at read models and consumers, and acting on
// them. Numbers are JSON numbers here, times RFC 3339.

var (
	errBody       = domain.NewError(domain.KindInvalidArgument, "MUSTER-body", "Body is not what this call takes")
	errShutdown   = domain.NewError(domain.KindUnavailable, "MUSTER-shutdown", "Service is shutting down")
	errNoConsumer = domain.NewError(domain.KindNotFound, "MUSTER-noconsumer", "There is no consumer of that name")
	errNotParked  = domain.NewError(domain.KindFailedPrecondition, "MUSTER-notparked", "Stream is not parked")
	errNoReason   = domain.NewError(domain.KindInvalidArgument, "MUSTER-reason", "Skipping needs a reason of at most 500 characters")
	errNoYes      = domain.NewError(domain.KindInvalidArgument, "MUSTER-yes", "A reset repeats every effect since the position: it needs after, and yes to be true")
)

// operatorsError turns what the consumers' room says into what the wire shows.
func operatorsError(err error) error {
	switch {
	case errors.Is(err, consumers.ErrNoConsumer):
		return errNoConsumer
	case errors.Is(err, consumers.ErrNotParked):
		return errNotParked
	case errors.Is(err, consumers.ErrNoReason):
		return errNoReason
	}
	return err
}

// bindOperation serves the operator's calls.
func (s *server) bindOperation() {
	type named struct {
		Name     string              `json:"name"`
		Versions []projectionVersion `json:"versions"`
		Rebuild  *RebuildProgress    `json:"rebuild,omitempty"`
	}
	type one struct {
		Consumer consumerInfo `json:"consumer"`
	}
	type released struct {
		Streams int `json:"streams"`
	}
	owner := func(verb, path, summary string, body, answer any, fn func(echo.Context, *call) (any, error), parameters ...parameter) {
		s.serveOwn(endpoint{verb: verb, path: path, permission: access.IAMWrite, summary: summary, body: body, answer: answer, parameters: parameters},
			answering(fn, operatorsError))
	}
	read := func(path, summary string, answer any, fn func(echo.Context, *call) (any, error), parameters ...parameter) {
		owner(http.MethodGet, path, summary, nil, answer, fn, parameters...)
	}
	act := func(path, summary string, body, answer any, fn func(echo.Context, *call) (any, error)) {
		owner(http.MethodPost, path, summary, body, answer, fn)
	}
	read("/v1/projections", "All versions of all read models", listed[projectionVersion]{}, s.listProjections)
	read("/v1/projections/:name", "A read model's versions, and how far its rebuild is", named{}, s.getProjection)
	read("/v1/projections/:name/stopped", "The streams whose rows stand still", listed[stoppedStream]{}, s.listStopped,
		limParameter, parameter{"stream", "query", "Tell more of this stream alone.", aText})
	act("/v1/projections/:name/_retry", "Apply a stopped stream's events again", streamRequest{}, struct{}{}, s.retryStopped)
	if s.deps.Rebuilds != nil {
		start := func(rollback bool) func(echo.Context, *call) (any, error) {
			return func(e echo.Context, c *call) (any, error) {
				if err := s.deps.Rebuilds.Start(e.Param("name"), rollback); err != nil {
					return nil, err
				}
				return s.getProjection(e, c)
			}
		}
		act("/v1/projections/:name/_rebuild", "Build a read model anew beside the live version, then switch", nil, named{}, start(false))
		act("/v1/projections/:name/_rollback", "Go back to the version before the live one", nil, named{}, start(true))
		act("/v1/projections/_rebuild", "Build all read models anew, one after the other", nil, listed[projectionVersion]{}, func(e echo.Context, c *call) (any, error) {
			if err := s.deps.Rebuilds.StartAll(); err != nil {
				return nil, err
			}
			return s.listProjections(e, c)
		})
	}

	read("/v1/consumers", "All consumers", listed[consumerInfo]{}, s.listConsumers)
	read("/v1/consumers/:name", "How far a consumer is", one{}, s.getConsumer)
	read("/v1/consumers/:name/parked", "The streams that a consumer has put aside", listed[parkedStream]{}, s.listParked, limParameter)
	act("/v1/consumers/:name/_retry", "Try a parked stream again, or all", streamRequest{}, released{}, s.releaseParked((*consumers.Admin).Retry))
	act("/v1/consumers/:name/_release", "Drain a parked stream, or all", streamRequest{}, released{}, s.releaseParked((*consumers.Admin).Release))
	act("/v1/consumers/:name/_skip", "Pass over the event at which a stream is parked, for a reason that is recorded", skipRequest{}, struct{}{}, s.skipParked)
	act("/v1/consumers/:name/_reset", "Begin again behind a position: every effect since is repeated", resetRequest{}, struct{}{}, s.resetConsumer)
}

// What the calls take.
type (
	// streamRequest names a stream.
	streamRequest struct {
		Stream string `json:"stream"`
	}
	skipRequest struct {
		Stream string `json:"stream"`
		Reason string `json:"reason"`
	}
	resetRequest struct {
		After *int64 `json:"after"`
		Yes   bool   `json:"yes"`
	}
)

// countOf is projections.Count on the wire.
type countOf struct {
	Org   string `json:"resourceOwner"`
	State string `json:"state"`
	Users int64  `json:"users"`
}

// counts is how many users there are, as of a position of the log.
type counts struct {
	Result   []countOf           `json:"result"`
	Position eventstore.Position `json:"position"`
	Updated  *time.Time          `json:"updated,omitempty"`
}

// bindCounts serves the numbers of a dashboard.
func (s *server) bindCounts() {
	s.serveOwn(endpoint{
		verb: http.MethodGet, path: "/v1/counts", permission: access.UserRead, answer: counts{},
		summary: "How many users the organisation has in each state",
		parameters: []parameter{
			{"allOrganisations", "query", "Of every organisation; needs " + string(access.IAMWrite) + ".", aFlag}, minParameter,
		},
	}, answering(s.countUsers, func(err error) error { return err }))
}

func (s *server) countUsers(e echo.Context, c *call) (any, error) {
	ctx := e.Request().Context()
	all, err := everyOrganisation(e, c)
	if err != nil {
		return nil, err
	}
	scope := projections.InOrg(c.org)
	if all {
		scope = projections.Everywhere()
	}
	if err := s.reach(ctx, c, usersModel); err != nil {
		return nil, err
	}
	list, at, err := s.deps.Projections.Counts(ctx, scope)
	if err != nil {
		return nil, err
	}
	out := counts{Result: []countOf{}, Position: at.Position, Updated: moment(at.Time)}
	for _, n := range list {
		out.Result = append(out.Result, countOf{Org: n.Org, State: userv1.UserState(n.State).String(), Users: n.Users})
	}
	return out, nil
}

// everyOrganisation reads the query's allOrganisations, which only the
// installation's owner may ask for.
func everyOrganisation(e echo.Context, c *call) (bool, error) {
	v := e.QueryParam("allOrganisations")
	if v == "" {
		return false, nil
	}
	all, err := strconv.ParseBool(v)
	switch {
	case err != nil:
		return false, errQuery
	case all && !c.token.Role.May(access.IAMWrite):
		return false, access.ErrNoPermission
	}
	return all, nil
}

// readBody reads a call's JSON object into v; an empty body stands for {}.
func readBody(e echo.Context, v any) error {
	err := json.NewDecoder(e.Request().Body).Decode(v)
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &wrongType):
		return errBody
	}
	return readError(err)
}

// listLimit reads the query's limit.
func listLimit(e echo.Context) (int, error) {
	text := e.QueryParam("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1:
		return 0, errQuery
	case n > maxLimit:
		return 0, errLimit
	}
	return n, nil
}

// moment leaves a time out that is not there.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// projectionVersion is projections.Status on the wire.
type projectionVersion struct {
	Name        string              `json:"name"`
	Version     int                 `json:"version"`
	Definition  int                 `json:"definition"`
	State       string              `json:"state"`
	Phase       string              `json:"phase,omitempty"`
	Epoch       int32               `json:"epoch"`
	Position    eventstore.Position `json:"position"`
	Head        eventstore.Position `json:"head"`
	Lag         int64               `json:"lag"`
	Oldest      float64             `json:"oldestUnhandledSeconds"`
	BulkTo      eventstore.Position `json:"bulkTo,omitempty"`
	Chunks      int                 `json:"chunksDone,omitempty"`
	TotalChunks int                 `json:"chunks,omitempty"`
	Events      int64               `json:"events,omitempty"`
	Owner       string              `json:"owner,omitempty"`
	Ranges      int                 `json:"ranges"`
	Held        int                 `json:"rangesHeld"`
	Problem     string              `json:"problem,omitempty"`
	Stopped     int64               `json:"stoppedStreams"`
	Waiting     int64               `json:"waitingForOperator"`
	Updated     *time.Time          `json:"updated,omitempty"`
	Switched    *time.Time          `json:"switched,omitempty"`
}

func (s *server) versions(ctx context.Context, name string) ([]projectionVersion, error) {
	all, err := s.deps.Projections.Status(ctx)
	if err != nil {
		return nil, err
	}
	list := []projectionVersion{}
	for _, v := range all {
		if name != "" && v.Projection != name {
			continue
		}
		list = append(list, projectionVersion{
			Name: v.Projection, Version: v.Version, Definition: v.Definition, State: v.State, Phase: v.Phase,
			Epoch: v.Epoch, Position: v.Position, Head: v.Head, Lag: v.Lag, Oldest: v.Oldest.Seconds(),
			BulkTo: v.BulkTo, Chunks: v.Chunks, TotalChunks: v.TotalChunks, Events: v.Events, Owner: v.Owner, Ranges: v.Ranges, Held: v.Held, Problem: v.Problem,
			Stopped: v.Stopped, Waiting: v.Waiting, Updated: moment(v.Updated), Switched: moment(v.Switched),
		})
	}
	return list, nil
}

func (s *server) listProjections(e echo.Context, _ *call) (any, error) {
	list, err := s.versions(e.Request().Context(), "")
	return object{"result": list}, err
}

// getProjection answers with all versions of one read model and how far the
// rebuild is that this process was asked for last.
func (s *server) getProjection(e echo.Context, _ *call) (any, error) {
	name := e.Param("name")
	list, err := s.versions(e.Request().Context(), name)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errNoProjection
	}
	out := object{"name": name, "versions": list}
	if s.deps.Rebuilds != nil {
		if p := s.deps.Rebuilds.Progress(name); p != nil {
			out["rebuild"] = p
		}
	}
	return out, nil
}

// errNoProjection has the text and id of the read models' own.
var errNoProjection = domain.NewError(domain.KindNotFound, "MUSTER-noprojection", "There is no projection of that name")

// stoppedStream is projections.Stopped on the wire; what is known of the event
// only an inspection has.
type stoppedStream struct {
	Stream   string     `json:"stream"`
	Version  int        `json:"version"`
	Sequence int64      `json:"sequence"`
	Position int64      `json:"position"`
	Reason   string     `json:"reason"`
	Attempts int        `json:"attempts"`
	RetryAt  *time.Time `json:"retryAt,omitempty"`
	Since    *time.Time `json:"since"`
	Type     string     `json:"type,omitempty"`
	At       *time.Time `json:"at,omitempty"`
	Actor    string     `json:"actor,omitempty"`
	Waiting  int        `json:"eventsWaiting,omitempty"`
}

func stoppedOf(s projections.Stopped) stoppedStream {
	return stoppedStream{Stream: s.Stream, Version: s.Version, Sequence: s.Sequence, Position: s.Position, Reason: s.Reason,
		Attempts: s.Attempts, RetryAt: moment(s.RetryAt), Since: moment(s.Since)}
}

// listStopped lists the streams that stand still, or with ?stream= tells more
// of one.
func (s *server) listStopped(e echo.Context, _ *call) (any, error) {
	ctx, name := e.Request().Context(), e.Param("name")
	if stream := e.QueryParam("stream"); stream != "" {
		in, err := s.deps.Projections.Inspect(ctx, name, stream)
		if err != nil {
			return nil, err
		}
		out := stoppedOf(in.Stopped)
		out.Type, out.At, out.Actor, out.Waiting = in.Type, moment(in.At), in.Actor, in.Waiting
		return object{"stopped": out}, nil
	}
	limit, err := listLimit(e)
	if err != nil {
		return nil, err
	}
	switch versions, err := s.versions(ctx, name); {
	case err != nil:
		return nil, err
	case len(versions) == 0:
		return nil, errNoProjection
	}
	all, err := s.deps.Projections.Stopped(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	list := []stoppedStream{}
	for _, st := range all {
		list = append(list, stoppedOf(st))
	}
	return object{"result": list}, nil
}

func (s *server) retryStopped(e echo.Context, _ *call) (any, error) {
	var req streamRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	if req.Stream == "" {
		return nil, errBody
	}
	return object{}, s.deps.Projections.Retry(e.Request().Context(), e.Param("name"), req.Stream)
}

// Rebuilds are the rebuilds and rollbacks that were asked for over HTTP. They
// go on when the call has been answered; Close breaks them off, and the next
// call resumes them. It is safe for concurrent use.
type Rebuilds struct {
	engine *projections.Engine
	log    *slog.Logger
	now    func() time.Time
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	last   map[string]*RebuildProgress
}

// RebuildProgress tells how far a rebuild or a rollback is.
type RebuildProgress struct {
	Rollback bool       `json:"rollback,omitempty"`
	Running  bool       `json:"running"`
	Version  int        `json:"version,omitempty"`
	Phase    string     `json:"phase,omitempty"`
	Events   int64      `json:"events"`
	Total    int64      `json:"total"`
	Rate     float64    `json:"eventsPerSecond,omitempty"`
	Left     float64    `json:"secondsLeft,omitempty"`
	Started  time.Time  `json:"started"`
	Ended    *time.Time `json:"ended,omitempty"`
	// What came of it, when it has ended: From was live before, and the live
	// version's writer waited for Held seconds. Error is an error's text.
	From     int                 `json:"from,omitempty"`
	Position eventstore.Position `json:"position,omitempty"`
	Held     float64             `json:"switchSeconds,omitempty"`
	Stopped  int64               `json:"stoppedStreams,omitempty"`
	Error    string              `json:"error,omitempty"`
}

// NewRebuilds returns the rebuilds of an engine's read models; log may be nil.
func NewRebuilds(engine *projections.Engine, log *slog.Logger) *Rebuilds {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Rebuilds{engine: engine, log: log, now: time.Now, ctx: ctx, cancel: cancel, last: map[string]*RebuildProgress{}}
}

// Start begins a rebuild of a read model, or a rollback, unless one is under
// way in this process already. Errors: that there is no such read model, or
// that the service shuts down.
func (r *Rebuilds) Start(name string, rollback bool) error {
	known := false
	for _, m := range projections.Models() {
		known = known || m.Name() == name
	}
	if !known {
		return errNoProjection
	}
	return r.start([]string{name}, rollback)
}

// StartAll begins a rebuild of every read model, one after the other; those
// that are being rebuilt already are left alone. Error: that the service shuts
// down.
func (r *Rebuilds) StartAll() error {
	var names []string
	for _, m := range projections.Models() {
		names = append(names, m.Name())
	}
	return r.start(names, false)
}

func (r *Rebuilds) start(names []string, rollback bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errShutdown
	}
	var begun []string
	for _, name := range names {
		if p := r.last[name]; p != nil && p.Running {
			continue
		}
		r.last[name] = &RebuildProgress{Rollback: rollback, Running: true, Started: r.now().UTC()}
		begun = append(begun, name)
	}
	r.work.Go(func() {
		for _, name := range begun {
			r.run(name, rollback)
		}
	})
	return nil
}

func (r *Rebuilds) run(name string, rollback bool) {
	work := r.engine.Rebuild
	if rollback {
		work = r.engine.Rollback
	}
	result, err := work(r.ctx, name, func(s projections.Step) {
		r.change(name, func(p *RebuildProgress) {
			p.Version, p.Phase, p.Events, p.Total, p.Rate, p.Left = s.Version, s.Phase, s.Events, s.Total, 0, 0
			if rate := float64(s.Events-s.Resumed) / s.Elapsed.Seconds(); s.Elapsed > 0 && rate >= 1 {
				p.Rate, p.Left = rate, float64(max(0, s.Total-s.Events))/rate
			}
		})
	})
	r.change(name, func(p *RebuildProgress) {
		p.Running, p.Ended, p.Rate, p.Left = false, moment(r.now()), 0, 0
		if err != nil {
			p.Error = asError(err).Error()
			return
		}
		p.Version, p.From, p.Position, p.Events, p.Held, p.Stopped = result.Version, result.From, result.Position, result.Events, result.Held.Seconds(), result.Stopped
	})
	if err != nil {
		r.log.Error("a rebuild broke off", "projection", name, "error", err)
		return
	}
	r.log.Info("a read model was rebuilt", "projection", name, "version", result.Version, "rollback", rollback)
}

func (r *Rebuilds) change(name string, f func(*RebuildProgress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.last[name])
}

// Progress tells how far the last rebuild of a read model is that this process
// was asked for; nil when it was asked for none.
func (r *Rebuilds) Progress(name string) *RebuildProgress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.last[name]
	if p == nil {
		return nil
	}
	copied := *p
	return &copied
}

// Close breaks off what is under way and returns when it has ended.
func (r *Rebuilds) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.work.Wait()
}

// consumerInfo is consumers.Info on the wire.
type consumerInfo struct {
	Name      string              `json:"name"`
	Epoch     int32               `json:"epoch"`
	Position  eventstore.Position `json:"position"`
	Lag       int64               `json:"lag"`
	Ranges    int                 `json:"ranges"`
	Leased    int                 `json:"leased"`
	Instances int                 `json:"instances"`
	Parked    int                 `json:"parked"`
	Retrying  int                 `json:"retrying"`
	Uncertain int                 `json:"uncertain"`
	Updated   *time.Time          `json:"updated,omitempty"`
}

// consumers lists consumers, or the one of a name.
func (s *server) consumers(ctx context.Context, name string) ([]consumerInfo, error) {
	all, err := consumers.NewAdmin(s.deps.Store).List(ctx, name)
	if err != nil {
		return nil, err
	}
	list := []consumerInfo{}
	for _, i := range all {
		list = append(list, consumerInfo{Name: i.Name, Epoch: i.Checkpoint.Epoch, Position: i.Checkpoint.Position, Lag: i.Lag, Ranges: i.Ranges,
			Leased: i.Leased, Instances: i.Instances, Parked: i.Parked, Retrying: i.Retrying, Uncertain: i.Uncertain, Updated: moment(i.UpdatedAt)})
	}
	return list, nil
}

func (s *server) listConsumers(e echo.Context, _ *call) (any, error) {
	list, err := s.consumers(e.Request().Context(), "")
	return object{"result": list}, err
}

func (s *server) getConsumer(e echo.Context, _ *call) (any, error) {
	list, err := s.consumers(e.Request().Context(), e.Param("name"))
	if err != nil {
		return nil, err
	}
	return object{"consumer": list[0]}, nil
}

// parkedStream is consumers.Parked on the wire.
type parkedStream struct {
	Stream   string              `json:"stream"`
	Org      string              `json:"org"`
	Sequence int64               `json:"sequence"`
	Position eventstore.Position `json:"position"`
	Epoch    int32               `json:"epoch"`
	Type     string              `json:"type"`
	State    string              `json:"state"`
	Attempts int                 `json:"attempts"`
	Class    string              `json:"class"`
	NextTry  *time.Time          `json:"nextAttempt,omitempty"`
	Since    *time.Time          `json:"since"`
}

func (s *server) listParked(e echo.Context, _ *call) (any, error) {
	return s.parkedOf(e, e.Param("name"))
}

func (s *server) parkedOf(e echo.Context, name string) (any, error) {
	ctx := e.Request().Context()
	limit, err := listLimit(e)
	if err != nil {
		return nil, err
	}
	admin := consumers.NewAdmin(s.deps.Store)
	if _, err := admin.List(ctx, name); err != nil {
		return nil, err
	}
	all, err := admin.Parked(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	list := []parkedStream{}
	for _, p := range all {
		list = append(list, parkedStream{Stream: p.Stream, Org: p.Org, Sequence: p.Sequence, Position: p.Position, Epoch: p.Epoch, Type: p.Type,
			State: p.State, Attempts: p.Attempts, Class: p.Class, NextTry: moment(p.NextAttemptAt), Since: moment(p.Since)})
	}
	return object{"result": list}, nil
}

// releaseParked serves what acts on one parked stream, or on all of a consumer.
func (s *server) releaseParked(act func(*consumers.Admin, context.Context, string, string) (int, error)) func(echo.Context, *call) (any, error) {
	return func(e echo.Context, _ *call) (any, error) { return s.releaseOf(e, e.Param("name"), act) }
}

func (s *server) releaseOf(e echo.Context, name string, act func(*consumers.Admin, context.Context, string, string) (int, error)) (any, error) {
	var req streamRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	ctx, admin := e.Request().Context(), consumers.NewAdmin(s.deps.Store)
	if _, err := admin.List(ctx, name); err != nil {
		return nil, err
	}
	n, err := act(admin, ctx, name, req.Stream)
	return object{"streams": n}, err
}

func (s *server) skipParked(e echo.Context, c *call) (any, error) {
	return s.skipOf(e, c, e.Param("name"))
}

func (s *server) skipOf(e echo.Context, c *call, name string) (any, error) {
	var req skipRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	return object{}, consumers.NewAdmin(s.deps.Store).Skip(e.Request().Context(), name, req.Stream, c.token.ID, req.Reason)
}

func (s *server) resetConsumer(e echo.Context, _ *call) (any, error) {
	var req resetRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	if req.After == nil || *req.After < 0 || !req.Yes {
		return nil, errNoYes
	}
	return object{}, consumers.NewAdmin(s.deps.Store).Reset(e.Request().Context(), e.Param("name"), eventstore.Position(*req.After))
}
