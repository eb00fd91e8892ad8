package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/schollz/progressbar/v3"

	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/importer/source"
)

type importCmd struct {
	Files []string `arg:"" optional:"" name:"file" help:"What the old system gave: its users, and for some systems a second file with their hashes. - is standard input."`

	Server string `env:"MUSTER_SERVER" placeholder:"URL" help:"The service; unset: the one on this machine."`
	Token  string `env:"MUSTER_TOKEN" placeholder:"TOKEN" help:"A token that may write users; unset: the admin's, from the data folder."`
	Listen string `env:"MUSTER_LISTEN" default:":8080" hidden:""`
	Org    string `placeholder:"ID" help:"The organisation; unset: what the file says, else the token's own."`

	Format     string `placeholder:"NAME" help:"The old system, when the files do not tell; see --formats."`
	Formats    bool   `help:"List the formats."`
	DryRun     bool   `help:"Say what would become of each user, and change nothing."`
	OnConflict string `enum:"fail,skip,update" default:"fail" help:"Users who are there already: fail, skip or update."`
	Notify     string `enum:"none,init" default:"none" help:"Mails: none, or init to those who have to complete their account."`
	Job        string `placeholder:"ID" help:"A name for the import. The same name resumes it."`
	VerifyURL  string `name:"verify-url" placeholder:"URL" help:"Where the old system checks passwords, of users who come without a usable hash: asked at their first login, then never again."`
	VerifyAuth string `name:"verify-authorization" env:"MUSTER_VERIFY_AUTHORIZATION" placeholder:"VALUE" help:"The header Authorization that goes along there. Better in the environment than on the command line."`
	Report     string `placeholder:"FILE" help:"Write what became of each row, a line of JSON each."`

	Map               []string `placeholder:"RULE" sep:"none" help:"idp:SOURCE=CONFIGID, field:OURS=PATH or metadata:PATH=KEY. Can be repeated."`
	IDs               string   `name:"ids" enum:"auto,keep,new" default:"auto" help:"User ids: keep the source's, make new ones, or auto: keep those that are unique in the world."`
	AssumeVerified    bool     `help:"Take e-mail addresses as verified where the source does not know."`
	PhoneRegion       string   `placeholder:"CC" help:"The country of phone numbers without a country code, such as SE."`
	PlaceholderDomain string   `placeholder:"DOMAIN" help:"Give users without an e-mail address one at this domain, not verified."`
	Scheme            string   `placeholder:"NAME" help:"FusionAuth's encryption scheme, when the file does not say."`
	Factor            int      `placeholder:"N" help:"FusionAuth's factor, when the file does not say."`
	FirebaseConfig    string   `placeholder:"FILE" help:"Firebase's password hash parameters, as its console shows them."`
	PepperFile        string   `placeholder:"FILE" help:"The pepper that the old system mixed into passwords."`
	PepperHow         string   `default:"suffix" enum:"suffix,prefix,hmac-sha256-hex,hmac-sha256-base64,hmac-sha512-hex,hmac-sha512-base64" help:"How it did."`
	PasskeyLinks      string   `placeholder:"FILE" help:"Write the links that passkeys are registered with, a line of JSON each. They let people in."`
}

// Run converts the files and sends them to the service.
func (c *importCmd) Run(a *app) error {
	if c.Formats {
		for _, f := range source.Formats() {
			fmt.Fprintln(a.out, f)
		}
		return nil
	}
	if len(c.Files) == 0 {
		return errors.New("name the files, or - for standard input")
	}
	if c.Server == "" {
		_, port, err := net.SplitHostPort(c.Listen)
		if err != nil {
			return fmt.Errorf("the service's address: %w", err)
		}
		c.Server = "http://" + net.JoinHostPort("localhost", port)
	}
	if c.Token == "" {
		file := filepath.Join(a.cfg.DataDir, "admin.token")
		raw, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("no --token, and no admin token of a service on this machine: %w", err)
		}
		c.Token = strings.TrimSpace(string(raw))
	}
	given := c.Job != ""
	if !given {
		c.Job = ulid.Make().String()
	}
	for {
		err := c.once(a, given)
		if !errors.Is(err, errRehearseAgain) || slices.Contains(c.Files, "-") {
			return err
		}
		fmt.Fprintln(a.out, "the connection broke; the dry run begins again")
	}
}

// errRehearseAgain says that a dry run broke off: it has nothing to resume.
var errRehearseAgain = errors.New("the connection broke during the dry run; start it again")

// once makes one attempt, which resumes by itself unless it is a dry run.
func (c *importCmd) once(a *app, resume bool) (err error) {
	opts, err := c.options()
	if err != nil {
		return err
	}
	var inputs []source.Input
	read := &atomic.Int64{}
	total := int64(0)
	for _, name := range c.Files {
		f := os.Stdin
		if name != "-" {
			if f, err = os.Open(name); err != nil {
				return err
			}
			defer f.Close()
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && total >= 0 {
			total += info.Size()
		} else {
			total = -1
		}
		inputs = append(inputs, source.Input{Name: name, R: &countingReader{f, read}})
	}
	src, why, err := source.Open(inputs, opts)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // what was only read
	for _, w := range why {
		fmt.Fprintln(a.out, w)
	}

	show := &importProgress{a: a, read: read, total: total, began: time.Now()}
	s := &importSession{cmd: c, a: a, show: show, client: &http.Client{}, resume: resume, secrets: opts.Secrets}
	if s.report, err = openReport(c.Report, resume); err != nil {
		return err
	}
	if s.links, err = openReport(c.PasskeyLinks, resume); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.report.close(), s.links.close()) }()
	err = s.run(a, src)
	show.end()
	if err != nil {
		if !c.DryRun {
			fmt.Fprintf(a.out, "%d users have their answers; to go on:\n\n%s\n\n", s.answered, c.again())
		}
		if a.Err() != nil {
			return exitError(130)
		}
		return err
	}
	s.tell(src.Losses())
	if s.failed+s.unread.Load() > 0 {
		return exitError(3)
	}
	return nil
}

func (c *importCmd) options() (source.Options, error) {
	mapping, err := source.ParseMapping(c.Map)
	if err != nil {
		return source.Options{}, err
	}
	opts := source.Options{
		Format: source.Format(c.Format), Map: mapping, AssumeVerified: c.AssumeVerified, PhoneRegion: c.PhoneRegion,
		IDs:               map[string]source.IDs{"auto": source.IDsAuto, "keep": source.IDsKeep, "new": source.IDsNew}[c.IDs],
		PlaceholderDomain: c.PlaceholderDomain, Scheme: c.Scheme, Factor: c.Factor, Now: time.Now().Unix(), Secrets: password.Secrets{},
	}
	if c.FirebaseConfig != "" && c.PepperFile != "" {
		return opts, errors.New("a source has Firebase's parameters or a pepper, not both")
	}
	if c.FirebaseConfig != "" {
		raw, err := os.ReadFile(c.FirebaseConfig)
		if err != nil {
			return opts, err
		}
		fb, err := parseFirebase(raw)
		if err != nil {
			return opts, fmt.Errorf("%s: %w", c.FirebaseConfig, err)
		}
		opts.SecretRef, opts.Secrets["firebase"] = "firebase", password.Secret{Firebase: &fb}
	}
	if c.PepperFile != "" {
		raw, err := os.ReadFile(c.PepperFile)
		if err != nil {
			return opts, err
		}
		raw = bytes.TrimRight(raw, "\r\n")
		opts.SecretRef, opts.Secrets["pepper"] = "pepper", password.Secret{Pepper: &password.Pepper{Key: raw, How: password.PepperHow(c.PepperHow)}}
	}
	for _, secret := range opts.Secrets {
		if err := secret.Validate(); err != nil {
			return opts, fmt.Errorf("the secret: %w", err)
		}
	}
	return opts, nil
}

var firebaseSetting = regexp.MustCompile(`(?i)["']?(base64_signer_key|signerKey|base64_salt_separator|saltSeparator|rounds|mem_?cost)["']?\s*[:=]\s*["']?([A-Za-z0-9+/_=-]+)`)

// parseFirebase reads the parameters as the console shows them, or as JSON.
func parseFirebase(raw []byte) (password.Firebase, error) {
	var f password.Firebase
	found := map[string]string{}
	for _, m := range firebaseSetting.FindAllStringSubmatch(string(raw), -1) {
		name := strings.ToLower(strings.NewReplacer("base64_", "", "_", "").Replace(m[1]))
		found[name] = m[2]
	}
	decode := func(name string) (b []byte, err error) {
		text := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(found[name]), "=")
		if b, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			err = fmt.Errorf("%s is not base64", name)
		}
		return b, err
	}
	var errs [4]error
	f.SignerKey, errs[0] = decode("signerkey")
	f.SaltSeparator, errs[1] = decode("saltseparator")
	f.Rounds, errs[2] = strconv.Atoi(found["rounds"])
	f.MemCost, errs[3] = strconv.Atoi(found["memcost"])
	for _, err := range errs {
		if err != nil {
			return f, errors.New("want base64_signer_key, base64_salt_separator, rounds and mem_cost, each with its value")
		}
	}
	return f, nil
}

// again is the command that resumes.
func (c *importCmd) again() string {
	args := []string{"muster", "import", "--job=" + c.Job}
	add := func(name, value, def string) {
		if value != def {
			args = append(args, "--"+name+"="+value)
		}
	}
	add("server", c.Server, "http://localhost:8080")
	add("org", c.Org, "")
	add("format", c.Format, "")
	add("on-conflict", c.OnConflict, "fail")
	add("notify", c.Notify, "none")
	add("verify-url", c.VerifyURL, "") // the job has kept its authorization
	add("report", c.Report, "")
	for _, m := range c.Map {
		add("map", m, "")
	}
	add("ids", c.IDs, "auto")
	if c.AssumeVerified {
		args = append(args, "--assume-verified")
	}
	add("phone-region", c.PhoneRegion, "")
	add("placeholder-domain", c.PlaceholderDomain, "")
	add("scheme", c.Scheme, "")
	add("factor", strconv.Itoa(c.Factor), "0")
	add("firebase-config", c.FirebaseConfig, "")
	add("pepper-file", c.PepperFile, "")
	add("pepper-how", c.PepperHow, "suffix")
	add("passkey-links", c.PasskeyLinks, "")
	args = append(args, c.Files...)
	for i, arg := range args {
		if strings.ContainsFunc(arg, func(r rune) bool { return !strings.ContainsRune("=-_./:@,+", r) && !isAlnum(r) }) {
			args[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(args, " ")
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// countingReader counts what is read of all files together.
type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// report is a file of JSON lines; nil when none is wanted.
type report struct {
	mu sync.Mutex // guards f: rows that are not sent are reported beside the answers
	f  *os.File
}

func openReport(name string, resume bool) (*report, error) {
	if name == "" {
		return nil, nil
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if resume {
		flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &report{f: f}, nil
}

func (r *report) write(v any) error {
	if r == nil {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.f.Write(append(line, '\n'))
	return err
}

func (r *report) close() error {
	if r == nil {
		return nil
	}
	return r.f.Close()
}

// importProgress shows how far an import is: a bar on a terminal, else lines.
type importProgress struct {
	a     *app
	read  *atomic.Int64
	total int64 // bytes of all files; -1 when not known
	began time.Time
	bar   *progressbar.ProgressBar
	last  time.Time
}

func (p *importProgress) step(done, failed int64) {
	now := time.Now()
	terminal := onTerminal(p.a.out)
	every := 5 * time.Second
	if terminal {
		every = 100 * time.Millisecond
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	rate := float64(done) / now.Sub(p.began).Seconds()
	text := fmt.Sprintf("%d users, %d failed, %.0f/s", done, failed, rate)
	if !terminal {
		if read := p.read.Load(); p.total > 0 && read > 0 {
			left := time.Duration(float64(now.Sub(p.began)) * float64(p.total-read) / float64(read))
			text += fmt.Sprintf(", %d %%, %v left", 100*read/p.total, left.Round(time.Second))
		}
		fmt.Fprintln(p.a.out, text)
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(p.total, progressbar.OptionSetWriter(p.a.out), progressbar.OptionShowBytes(true),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth())
	}
	p.bar.Describe(text)
	_ = p.bar.Set64(p.read.Load())
}

func (p *importProgress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(p.a.out)
		p.bar = nil
	}
}

// tell says what came of the import.
func (s *importSession) tell(l source.Losses) {
	out := s.a.out
	what := "taken in"
	if s.cmd.DryRun {
		what = "would be taken in"
	}
	fmt.Fprintf(out, "%d users %s, %d changed, %d skipped, %d failed, in %.1f s (job %s)\n", s.created, what, s.updated, s.skipped, s.failed, s.seconds, s.cmd.Job)
	if n := s.unread.Load(); n > 0 {
		fmt.Fprintf(out, "%d rows could not be read\n", n)
	}
	for _, id := range slices.Sorted(maps.Keys(s.reasons)) {
		fmt.Fprintf(out, "  failed: %6d  %s\n", s.reasons[id], id)
	}
	if s.unlinked > 0 {
		fmt.Fprintf(out, "%d links to register a passkey were made and not kept; --passkey-links keeps them\n", s.unlinked)
	}

	f := s.forecast
	fmt.Fprintf(out, "\nAt their first login, of %d users:\n", f.Users)
	for _, way := range []struct {
		n    int64
		text string
	}{
		{f.Password, "get in with their password"}, {f.OldSystem, "get in with their password through the old system"}, {f.IDP, "get in by a provider"}, {f.Passkey, "get in by registering a passkey"},
		{f.Verify, "have to prove their address first"}, {f.Reset, "have to set a password"}, {f.Blocked, "are inactive or locked"}, {f.Cannot, "cannot get in"},
	} {
		if way.n > 0 {
			fmt.Fprintf(out, "%9d  %s\n", way.n, way.text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Formats)) {
		p := f.Formats[name]
		fmt.Fprintf(out, "%9d  hashes: %s", p.Users, name)
		if p.Weak > 0 {
			fmt.Fprintf(out, ", %d of them weak (%s); replaced at the first login", p.Weak, p.Weakness)
		}
		fmt.Fprintln(out)
	}

	begun := false
	list := func(title string, counts map[string]int64) {
		for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) }) {
			if !begun {
				fmt.Fprintf(out, "\nNot carried:\n")
				begun = true
			}
			fmt.Fprintf(out, "%9d  %s: %s\n", counts[name], title, name)
		}
	}
	list("field", l.Fields)
	list("row", l.Skipped)
	list("hash", l.Hashes)
	list("second factor", l.Factors)
	list("provider without a configuration id", l.Providers)
	list("row of a second file that no user has", l.Unmatched)
	list("row of a second file that cannot be read", l.Unread)
}
