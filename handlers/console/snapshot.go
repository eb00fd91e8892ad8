package console

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/projections"
)

const (
	// history is how many of the latest rates a frame has, one a poll.
	history = 60
	// maxOrgs, maxJobs, maxParked and maxStopped bound what a frame lists.
	maxOrgs    = 12
	maxJobs    = 12
	maxParked  = 50
	maxStopped = 20
	// namesEvery is how often the organisations' names are read anew.
	namesEvery = 10 * time.Second
)

// snapshot is a frame: the state of everything, as of one poll. Times are
// RFC 3339, rates per second.
type snapshot struct {
	At      time.Time           `json:"at"`
	Head    eventstore.Position `json:"head"`
	Users   int64               `json:"users"`
	States  map[string]int64    `json:"states"`
	Orgs    []orgCount          `json:"orgs"`
	AllOrgs int                 `json:"allOrgs"`
	// EventRates and UserRates are the latest ones, the newest last.
	EventRates  []float64         `json:"eventRates"`
	UserRates   []float64         `json:"userRates"`
	Jobs        []jobState        `json:"jobs"`
	Projections []projectionState `json:"projections"`
	Stopped     []stopped         `json:"stopped"`
	Consumers   []consumerState   `json:"consumers"`
	Parked      []parked          `json:"parked"`
	// Problem says that the database could not be asked; the rest is empty.
	Problem bool `json:"problem,omitempty"`
}

type orgCount struct {
	ID     string           `json:"id"`
	Name   string           `json:"name"`
	Users  int64            `json:"users"`
	States map[string]int64 `json:"states"`
}

type jobState struct {
	ID      string    `json:"id"`
	Org     string    `json:"org"`
	OrgName string    `json:"orgName"`
	State   string    `json:"state"`
	DryRun  bool      `json:"dryRun"`
	Lines   int64     `json:"lines"`
	Created int64     `json:"created"`
	Updated int64     `json:"updated"`
	Skipped int64     `json:"skipped"`
	Failed  int64     `json:"failed"`
	Removed int64     `json:"removed"`
	Seconds float64   `json:"seconds"`
	Rate    float64   `json:"rate"`
	Started time.Time `json:"started"`
}

type projectionState struct {
	Name     string              `json:"name"`
	Version  int                 `json:"version"`
	Position eventstore.Position `json:"position"`
	Lag      int64               `json:"lag"`
	Owned    bool                `json:"owned"`
	Problem  string              `json:"problem"`
	Stopped  int64               `json:"stopped"`
	Waiting  int64               `json:"waiting"`
	// Retired is the version that a rollback goes back to; 0 for none.
	Retired int       `json:"retired"`
	Rebuild *Progress `json:"rebuild"`
}

type stopped struct {
	Projection string    `json:"projection"`
	Stream     string    `json:"stream"`
	Sequence   int64     `json:"sequence"`
	Reason     string    `json:"reason"`
	Attempts   int       `json:"attempts"`
	Since      time.Time `json:"since"`
}

type consumerState struct {
	Name      string              `json:"name"`
	Position  eventstore.Position `json:"position"`
	Lag       int64               `json:"lag"`
	Instances int                 `json:"instances"`
	Parked    int                 `json:"parked"`
	Retrying  int                 `json:"retrying"`
	Uncertain int                 `json:"uncertain"`
}

type parked struct {
	Consumer string    `json:"consumer"`
	Stream   string    `json:"stream"`
	Sequence int64     `json:"sequence"`
	Type     string    `json:"type"`
	State    string    `json:"state"`
	Attempts int       `json:"attempts"`
	Class    string    `json:"class"`
	Since    time.Time `json:"since"`
}

// poller remembers what rates are made from. It belongs to one goroutine.
type poller struct {
	c       *console
	at      time.Time
	head    eventstore.Position
	users   int64
	jobs    map[string]int64
	events  []float64
	people  []float64
	names   map[string]string
	namesAt time.Time
}

// snapshots polls until ctx ends.
func (c *console) snapshots(ctx context.Context, send func([]byte)) {
	p := &poller{c: c}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	failing := false
	for {
		asking, end := context.WithTimeout(ctx, 5*time.Second)
		s, err := p.look(asking)
		end()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !failing {
				c.cfg.Log.Warn("the console cannot see how the installation is doing", "error", err)
			}
			s = snapshot{At: c.cfg.Now().UTC(), Problem: true}
		}
		failing = err != nil
		if frame, err := json.Marshal(s); err == nil {
			send(frame)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks for everything that a frame has.
func (p *poller) look(ctx context.Context) (snapshot, error) {
	now := time.Now() // with the monotonic clock that rates need
	s := snapshot{At: p.c.cfg.Now().UTC(), Orgs: []orgCount{}, Jobs: []jobState{}, Projections: []projectionState{},
		Stopped: []stopped{}, Consumers: []consumerState{}, Parked: []parked{}}
	head, err := p.c.cfg.Store.Head(ctx)
	if err != nil {
		return s, err
	}
	s.Head = head.Position
	passed := now.Sub(p.at).Seconds()
	for _, part := range []func(context.Context, *snapshot, float64) error{p.count, p.imports, p.readModels, p.others} {
		if err := part(ctx, &s, passed); err != nil {
			return s, err
		}
	}
	if !p.at.IsZero() {
		p.events = remember(p.events, float64(s.Head-p.head)/passed)
		p.people = remember(p.people, float64(s.Users-p.users)/passed)
	}
	p.at, p.head, p.users = now, s.Head, s.Users
	s.EventRates, s.UserRates = append([]float64{}, p.events...), append([]float64{}, p.people...)
	return s, nil
}

// remember adds a rate, rounded to tenths; people may become fewer, a rate of
// imports does not.
func remember(list []float64, rate float64) []float64 {
	list = append(list, float64(int64(max(0, rate)*10+.5))/10)
	return list[max(0, len(list)-history):]
}

// count counts users by state and organisation. Which organisations a frame
// lists is decided by how many users they have.
func (p *poller) count(ctx context.Context, s *snapshot, _ float64) error {
	if time.Since(p.namesAt) >= namesEvery {
		orgs, _, _, err := p.c.cfg.Projections.Organisations(ctx, projections.Everywhere(), 0, projections.MaxLimit)
		if err != nil {
			return err
		}
		p.names, p.namesAt = map[string]string{}, time.Now()
		for _, o := range orgs {
			p.names[o.ID] = o.Name
		}
	}
	counts, _, err := p.c.cfg.Projections.Counts(ctx, projections.Everywhere())
	if err != nil {
		return err
	}
	s.States = map[string]int64{}
	by := map[string]*orgCount{}
	for _, n := range counts {
		o := by[n.Org]
		if o == nil {
			o = &orgCount{ID: n.Org, Name: p.orgName(n.Org), States: map[string]int64{}}
			by[n.Org] = o
		}
		state := stateName(n.State)
		o.Users += n.Users
		o.States[state] += n.Users
		s.States[state] += n.Users
		s.Users += n.Users
	}
	for _, o := range by {
		s.Orgs = append(s.Orgs, *o)
	}
	slices.SortFunc(s.Orgs, func(a, b orgCount) int { return cmp.Or(cmp.Compare(b.Users, a.Users), cmp.Compare(a.ID, b.ID)) })
	s.AllOrgs = len(s.Orgs)
	s.Orgs = s.Orgs[:min(len(s.Orgs), maxOrgs)]
	return nil
}

func (p *poller) orgName(id string) string { return cmp.Or(p.names[id], id) }

func (p *poller) imports(ctx context.Context, s *snapshot, passed float64) error {
	if p.c.cfg.Jobs == nil {
		return nil
	}
	jobs, err := p.c.cfg.Jobs.Latest(ctx, maxJobs)
	if err != nil {
		return err
	}
	lines := map[string]int64{}
	for _, j := range jobs {
		state := jobState{ID: j.ID, Org: j.Org, OrgName: p.orgName(j.Org), State: j.State, DryRun: j.DryRun, Lines: j.Lines, Created: j.Created, Updated: j.Updated,
			Skipped: j.Skipped, Failed: j.Failed, Removed: j.Removed, Seconds: j.Seconds, Started: j.StartedAt.UTC()}
		if before, known := p.jobs[j.ID]; known {
			state.Rate = max(0, float64(j.Lines-before)/passed)
		}
		lines[j.ID] = j.Lines
		s.Jobs = append(s.Jobs, state)
	}
	p.jobs = lines
	return nil
}

func (p *poller) readModels(ctx context.Context, s *snapshot, _ float64) error {
	all, err := p.c.cfg.Projections.Status(ctx)
	if err != nil {
		return err
	}
	retired := map[string]int{}
	anyStopped := false
	for _, v := range all {
		switch v.State {
		case "retired":
			retired[v.Projection] = max(retired[v.Projection], v.Version)
		case "live":
			anyStopped = anyStopped || v.Stopped > 0
			s.Projections = append(s.Projections, projectionState{Name: v.Projection, Version: v.Version, Position: v.Position, Lag: v.Lag,
				Owned: v.Held == v.Ranges, Problem: v.Problem, Stopped: v.Stopped, Waiting: v.Waiting})
		}
	}
	for i := range s.Projections {
		m := &s.Projections[i]
		m.Retired = retired[m.Name]
		if p.c.cfg.Progress != nil {
			if progress, ok := p.c.cfg.Progress(m.Name); ok {
				m.Rebuild = &progress
			}
		}
	}
	if !anyStopped {
		return nil
	}
	list, err := p.c.cfg.Projections.Stopped(ctx, "", maxStopped)
	for _, v := range list {
		s.Stopped = append(s.Stopped, stopped{v.Projection, v.Stream, v.Sequence, v.Reason, v.Attempts, v.Since.UTC()})
	}
	return err
}

// others looks at those who act on events.
func (p *poller) others(ctx context.Context, s *snapshot, _ float64) error {
	all, err := p.c.admin.List(ctx, "")
	if err != nil {
		return err
	}
	aside := 0
	for _, i := range all {
		aside += i.Parked + i.Retrying
		s.Consumers = append(s.Consumers, consumerState{i.Name, i.Checkpoint.Position, i.Lag, i.Instances, i.Parked, i.Retrying, i.Uncertain})
	}
	if aside == 0 {
		return nil
	}
	list, err := p.c.admin.Parked(ctx, "", maxParked)
	for _, v := range list {
		if v.State != "released" {
			s.Parked = append(s.Parked, parked{v.Consumer, v.Stream, v.Sequence, v.Type, v.State, v.Attempts, v.Class, v.Since.UTC()})
		}
	}
	return err
}
