package handlers

import (
	"context"
	"net/url"

	"github.com/muster-id/muster/handlers/console"
)

// serveConsole serves the operator's page.
func (s *server) serveConsole() {
	public := s.deps.PublicURL
	if u, err := url.Parse(public); err == nil && public != "" {
		public = u.Scheme + "://" + u.Host // forms come from an origin, whatever its path
	}
	cfg := console.Config{
		Store: s.deps.Store, Projections: s.deps.Projections, Tokens: s.deps.Tokens, Organisations: s.deps.Organisations,
		Jobs: s.deps.Jobs, Log: s.deps.Log, Now: s.deps.Now, Origin: s.origin, PublicURL: public, Stopping: s.deps.Stopping,
		Fail: func(ctx context.Context, err error) (status int, message, reference string) {
			c := callOf(ctx)
			e := s.failure(ctx, c, operatorsError(err))
			return statusOf(e), e.Message, c.id
		},
	}
	if r := s.deps.Rebuilds; r != nil {
		cfg.Rebuild = r.Start
		cfg.Progress = func(name string) (console.Progress, bool) {
			p := r.Progress(name)
			if p == nil {
				return console.Progress{}, false
			}
			return console.Progress{Running: p.Running, Rollback: p.Rollback, Version: p.Version, Phase: p.Phase,
				Events: p.Events, Total: p.Total, Rate: p.Rate, Error: p.Error}, true
		}
	}
	console.Mount(s.echo, cfg)
}
