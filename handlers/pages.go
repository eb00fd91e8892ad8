package handlers

import (
	"context"
	"net/url"

	"github.com/muster-id/muster/handlers/pages"
)

// servePages serves what people see. An error that a page has no answer to is
// judged and logged as any call's is.
func (s *server) servePages() {
	if s.deps.SignIn == nil {
		return
	}
	public := s.deps.PublicURL
	if u, err := url.Parse(public); err == nil && public != "" {
		public = u.Scheme + "://" + u.Host // forms come from an origin, whatever its path
	}
	pages.Mount(s.echo, pages.Config{
		SignIn:     s.deps.SignIn,
		OrgName:    s.deps.Organisations.Name,
		DefaultOrg: s.deps.DefaultOrg,
		Origin:     s.origin,
		PublicURL:  public,
		Fail: func(ctx context.Context, err error) (status int, reference string) {
			c := callOf(ctx)
			return statusOf(s.failure(ctx, c, err)), c.id
		},
	})
}
