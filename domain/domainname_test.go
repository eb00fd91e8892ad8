package domain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
)

func TestNormaliseDomain(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, strings.Repeat("a", 61)}, ".") // 253
	for in, want := range map[string]string{
		"example.org":       "example.org",
		" Example.ORG ":     "example.org",
		"example.org.":      "example.org",
		"localhost":         "localhost",
		"bücher.example":    "xn--bcher-kva.example",
		"BÜCHER.example":    "xn--bcher-kva.example",
		"XN--BCHER-KVA.com": "xn--bcher-kva.com",
		"faß.example":       "xn--fa-hia.example",
		"example。org":       "example.org", // the ideographic full stop
		"1.a-b.c":           "1.a-b.c",
		long:                long,
		"":                  "",
		" ":                 "",
		".":                 "",
		".org":              "",
		"a..b":              "",
		"a.b..":             "",
		"-a.org":            "",
		"a-.org":            "",
		"a_b.org":           "",
		"a b.org":           "",
		"a@b.org":           "",
		"*.org":             "",
		"xn--a-\u00e9.org":  "",
		"xn--\u00fc.org":    "",
		"nul\x00.org":       "",
		"\xff.org":          "",
		label + "a.org":     "",
		"a" + long:          "",
		long + "\u00fc":     "",
		"https://a.org":     "",
		"a.org:80":          "",
	} {
		got, err := domain.NormaliseDomain(in)
		if got != want || errors.Is(err, domain.ErrDomainInvalid) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		if again, _ := domain.NormaliseDomain(got); again != got {
			t.Errorf("%q becomes %q, and that %q", in, got, again)
		}
	}
}

// TestReservedDomains is CONTRACT.md §6.3's first row, and its place in §1.3.
func TestReservedDomains(t *testing.T) {
	type C = domain.ImportHuman
	p := domain.DefaultPolicy()
	p.Reserved = func(name string) bool { return name == "acme.example" || name == "xn--bcher-kva.example" }
	user := domain.User{State: domain.StateActive, UserName: "old", ID: "1"}
	for name, refused := range map[string]bool{
		"gigi@acme.example":           true,
		"gigi@ACME.Example":           true,
		" gigi@acme.example ":         true,
		"gigi@acme.example.":          true,
		"gigi@other@acme.example":     true,
		"@acme.example":               true,
		"gigi@bücher.example":         true,
		"gigi@xn--Bcher-kva.example":  true,
		"gigi@acme.example@other.org": false,
		"gigi@sub.acme.example":       false,
		"gigi@notacme.example":        false,
		"gigi@acme.example.org":       false,
		"acme.example":                false,
		"gigi.acme.example":           false,
		"gigi@":                       false,
		"gigi@acme_example":           false,
	} {
		var want *domain.Error
		if refused {
			want = domain.ErrDomainReserved
		}
		_, _, err := minimal(func(c *C) { c.UserName = name }).Normalise(p)
		if refused != errors.Is(err, domain.ErrDomainReserved) || !refused && err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := user.ChangeUsername(name, p); want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q as a new name: %v", name, err)
		}
		if _, _, err := minimal(func(c *C) { c.UserName = name }).Normalise(domain.DefaultPolicy()); err != nil {
			t.Errorf("%q where nothing is reserved: %v", name, err)
		}
	}
	for what, c := range map[string]struct {
		change func(*C)
		want   *domain.Error
	}{
		"by fall-back":         {func(c *C) { c.UserName, c.UserNameFallback, c.Email.Address = "", true, "a@acme.example" }, domain.ErrDomainReserved},
		"after the e-mail":     {func(c *C) { c.Email.Address = "a" }, domain.ErrEmailInvalid},
		"after the phone":      {func(c *C) { c.Phone = &domain.Phone{Number: "+0"} }, domain.ErrPhoneInvalid},
		"before the password":  {func(c *C) { c.HashedPassword, c.Password = "", "a" }, domain.ErrDomainReserved},
		"before the hash":      {func(c *C) { c.HashedPassword = "a" }, domain.ErrDomainReserved},
		"before the links":     {func(c *C) { c.IDPLinks = []domain.IDPLink{{}} }, domain.ErrDomainReserved},
		"before the user's id": {func(c *C) { c.UserID = "$" }, domain.ErrDomainReserved},
	} {
		_, _, err := minimal(func(c *C) { c.UserName = "gigi@acme.example" }, c.change).Normalise(p)
		if !errors.Is(err, c.want) || domain.AsError(err).Field == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Only the user name counts.
	if _, _, err := minimal(func(c *C) { c.Email.Address = "gigi@acme.example" }).Normalise(p); err != nil {
		t.Errorf("the e-mail address: %v", err)
	}
}

func TestOrganisationDomains(t *testing.T) {
	o := &domain.Organisation{ID: "1"}
	refuse := func(want *domain.Error) func(domain.Decision, error) {
		return func(d domain.Decision, err error) { t.Helper(); expect(t, want, d, err) }
	}
	apply := func(take, release []domain.Claim) func(domain.Decision, error) {
		return func(d domain.Decision, err error) {
			t.Helper()
			if err != nil || d.Stream != "$org-1" || d.Org != "1" || d.Expected != o.Sequence || len(d.Events) != 1 {
				t.Fatalf("%+v, %v", d, err)
			}
			if diff := cmp.Diff([][]domain.Claim{take, release}, [][]domain.Claim{d.Take, d.Release}); diff != "" {
				t.Error(diff)
			}
			o.Apply(d.Events[0])
		}
	}
	claim := []domain.Claim{{Kind: "organisation_domain", Value: "acme.example"}}
	refuse(domain.ErrOrganisationMissing)(o.AddDomain("acme.example"))
	refuse(domain.ErrOrganisationMissing)(o.RemoveDomain("acme.example"))
	o.Apply(domain.OrganisationAdded{Name: "Acme"})
	refuse(domain.ErrDomainInvalid)(o.AddDomain("a@b"))
	refuse(domain.ErrDomainInvalid)(o.RemoveDomain(""))
	refuse(domain.ErrDomainMissing)(o.RemoveDomain("acme.example"))
	apply(claim, nil)(o.AddDomain(" ACME.example."))
	refuse(domain.ErrOrganisationSame)(o.AddDomain("acme.EXAMPLE"))
	apply([]domain.Claim{domain.DomainClaim("b.example")}, nil)(o.AddDomain("b.example"))
	if diff := cmp.Diff([]string{"acme.example", "b.example"}, o.Domains); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]domain.Claim{claim[0], domain.DomainClaim("b.example")}, o.Claims()); diff != "" {
		t.Error(diff)
	}
	apply(nil, claim)(o.RemoveDomain("Acme.example"))
	if diff := cmp.Diff([]string{"b.example"}, o.Domains); diff != "" {
		t.Error(diff)
	}
	for len(o.Domains) < domain.MaxDomains {
		d, err := o.AddDomain(strings.Repeat("a", len(o.Domains)/2+1) + "." + string(rune('a'+len(o.Domains)%2)))
		if err != nil {
			t.Fatal(err)
		}
		o.Apply(d.Events[0])
	}
	refuse(domain.ErrDomainsMany)(o.AddDomain("one.more"))
	if !errors.Is(claim[0].ConflictError(), domain.ErrDomainTaken) {
		t.Errorf("a taken domain: %v", claim[0].ConflictError())
	}
}

// BenchmarkReserved is what reserved domains cost each import: nothing while no
// organisation has one, then the domain's form and a look into the table.
func BenchmarkReserved(b *testing.B) {
	table := map[string]string{}
	for i := range 100_000 {
		table[fmt.Sprintf("company-%d.example", i)] = "org"
	}
	for _, c := range []struct {
		name, userName string
		reserved       func(string) bool
	}{
		{"no domains", "ada@example.org", nil},
		{"no address", "ada", func(d string) bool { return table[d] != "" }},
		{"100000 domains", "ada@mail.example.org", func(d string) bool { return table[d] != "" }},
		{"100000 domains, capitals", "ada@Mail.Example.org", func(d string) bool { return table[d] != "" }},
		{"100000 domains, another script", "ada@bücher.example", func(d string) bool { return table[d] != "" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := domain.DefaultPolicy()
			p.Reserved = c.reserved
			cmd := minimal(func(i *domain.ImportHuman) { i.UserName = c.userName })
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := cmd.Normalise(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
