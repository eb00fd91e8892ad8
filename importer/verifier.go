package importer

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
)

// Verifier is where the old system of a job checks passwords.
type Verifier struct {
	// URL is what a password is posted to; empty when nobody can be asked.
	URL string
	// Authorization is the header of that name; empty for none.
	Authorization string
}

// Verifier returns the verifier that a job named, the zero one when it named
// none, or its secrets are gone.
func (j *Jobs) Verifier(ctx context.Context, job string) (Verifier, error) {
	s, err := j.loadSecrets(ctx, job)
	if err != nil {
		return Verifier{}, err
	}
	return s.verifier, nil
}

// verifierForm judges a call's verifier by its form. Where it leads is judged
// whenever it is dialled.
func verifierForm(o Options) bool {
	if o.VerifyURL == "" {
		return o.VerifyAuthorization == ""
	}
	u, err := url.Parse(o.VerifyURL)
	if err != nil || len(o.VerifyURL) > 2000 || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	visible := strings.IndexFunc(o.VerifyAuthorization, func(c rune) bool { return c < ' ' || c > '~' }) < 0
	return visible && len(o.VerifyAuthorization) <= 4000 && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// verifier finds the job's verifier: the one that it was begun with, else the
// call's.
func (r *Run) verifier() error {
	named := Verifier{r.opts.VerifyURL, r.opts.VerifyAuthorization}
	had := r.secrets.verifier
	switch {
	case !r.secrets.begun:
		r.secrets.verifier = named
	case named.URL != "" && (named.URL != had.URL || named.Authorization != "" && named.Authorization != had.Authorization):
		return errJobOptions
	}
	return nil
}
