package handlers

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
)

// The webhooks of an organisation are its owner's: they see and change those
// alone. The installation's owner has those of all organisations, unless the
// call names one.

// defaultOverlap is how long a rotated key goes on signing when nothing is said.
const defaultOverlap = 24 * time.Hour

var (
	errNoWebhook     = domain.NewError(domain.KindNotFound, "MUSTER-nowebhook", "Webhook not found")
	errWebhookURL    = domain.NewError(domain.KindInvalidArgument, "MUSTER-webhookurl", "URL must be absolute, http or https, without user and password")
	errWebhookTarget = domain.NewError(domain.KindInvalidArgument, "MUSTER-webhooktarget", "URL must lead to a public address")
	errWebhookType   = domain.NewError(domain.KindInvalidArgument, "MUSTER-webhooktype", "There is no such type of event")
	errWebhookStart  = domain.NewError(domain.KindInvalidArgument, "MUSTER-webhookstart", "A webhook begins at one of from, after and since; from is now or beginning")
	errWebhookMany   = domain.NewError(domain.KindFailedPrecondition, "MUSTER-webhookmany", "Organisation has as many webhooks as it may")
	errOverlap       = domain.NewError(domain.KindInvalidArgument, "MUSTER-overlap", "overlapSeconds must be between 0 and 30 days")
	errReplay        = domain.NewError(domain.KindInvalidArgument, "MUSTER-replay", "A replay needs after, a position from 0 on")
)

// webhooksError turns what the consumers' room says into what the wire shows.
func webhooksError(err error) error {
	switch {
	case errors.Is(err, consumers.ErrNoWebhook), errors.Is(err, consumers.ErrNoConsumer):
		return errNoWebhook
	case errors.Is(err, consumers.ErrWebhookURL):
		return errWebhookURL
	case errors.Is(err, consumers.ErrTargetRefused):
		return errWebhookTarget
	case errors.Is(err, consumers.ErrOverlap):
		return errOverlap
	case errors.Is(err, consumers.ErrTooManyWebhooks):
		return errWebhookMany
	}
	return operatorsError(err)
}

// bindWebhooks serves the administration of webhooks.
func (s *server) bindWebhooks() {
	if s.deps.Webhooks == nil {
		return
	}
	type shown struct {
		Webhook webhook `json:"webhook"`
	}
	type withSecret struct {
		Webhook webhook `json:"webhook"`
		Secret  string  `json:"secret"`
	}
	type pinged struct {
		Delivered bool   `json:"delivered"`
		Status    int    `json:"status,omitempty"`
		Failure   string `json:"failure,omitempty"`
	}
	type released struct {
		Streams int `json:"streams"`
	}
	owner := func(verb, path, summary string, body, answer any, fn func(echo.Context, *call) (any, error), parameters ...parameter) {
		s.serveOwn(endpoint{verb: verb, path: "/v1/webhooks" + path, permission: access.OrgWrite, summary: summary, body: body, answer: answer, parameters: parameters},
			answering(fn, webhooksError))
	}
	const get, post = http.MethodGet, http.MethodPost
	owner(get, "", "The organisation's webhooks", nil, listed[webhook]{}, s.listWebhooks)
	owner(post, "", "Make a webhook; its secret is told this once", webhookRequest{}, withSecret{}, s.createWebhook)
	owner(get, "/:id", "One webhook", nil, shown{}, s.getWebhook)
	owner(http.MethodDelete, "/:id", "Delete a webhook", nil, struct{}{}, s.deleteWebhook)
	owner(post, "/:id/_enable", "Let a webhook go on where it was", nil, shown{}, s.enableWebhook(true))
	owner(post, "/:id/_disable", "Make a webhook pause", nil, shown{}, s.enableWebhook(false))
	owner(post, "/:id/_rotate", "Make a new key; the former one signs beside it for a while", rotateRequest{}, withSecret{}, s.rotateWebhook)
	owner(post, "/:id/_ping", "Send a test message", nil, pinged{}, s.pingWebhook)
	owner(post, "/:id/_replay", "Send everything behind a position again", replayRequest{}, shown{}, s.replayWebhook)
	owner(get, "/:id/parked", "The streams that the webhook has put aside", nil, listed[parkedStream]{}, s.listWebhookParked, limParameter)
	owner(post, "/:id/_retry", "Try a parked stream again, or all", streamRequest{}, released{}, s.releaseWebhookParked((*consumers.Admin).Retry))
	owner(post, "/:id/_release", "Drain a parked stream, or all", streamRequest{}, released{}, s.releaseWebhookParked((*consumers.Admin).Release))
	owner(post, "/:id/_skip", "Pass over the event at which a stream is parked, for a reason that is recorded", skipRequest{}, struct{}{}, s.skipWebhookParked)
}

// What the calls take.
type (
	webhookRequest struct {
		URL      string     `json:"url"`
		Types    []string   `json:"types"`
		AllOrgs  bool       `json:"allOrganisations"`
		Personal bool       `json:"personalData"`
		From     string     `json:"from"`
		After    *int64     `json:"after"`
		Since    *time.Time `json:"since"`
	}
	rotateRequest struct {
		Overlap *int64 `json:"overlapSeconds"`
	}
	replayRequest struct {
		After *int64 `json:"after"`
	}
)

// webhookScope is the organisation whose webhooks a call reaches; "" for all.
func webhookScope(c *call) string {
	if c.token.Role == access.IAMOwner && c.header.Get("X-Zitadel-Orgid") == "" {
		return ""
	}
	return c.org
}

// webhook is consumers.Webhook on the wire, with how far its consumer is.
type webhook struct {
	ID       string     `json:"id"`
	Org      string     `json:"org,omitempty"`
	AllOrgs  bool       `json:"allOrganisations,omitempty"`
	URL      string     `json:"url"`
	Types    []string   `json:"types"`
	Personal bool       `json:"personalData"`
	Enabled  bool       `json:"enabled"`
	Created  *time.Time `json:"created"`
	// PreviousUntil is when the key before the present one stops signing.
	PreviousUntil *time.Time    `json:"previousKeyUntil,omitempty"`
	Consumer      *consumerInfo `json:"consumer,omitempty"`
}

func webhookOf(h consumers.Webhook) webhook {
	types := h.Types
	if types == nil {
		types = []string{}
	}
	return webhook{ID: h.ID, Org: h.Org, AllOrgs: h.Org == "", URL: h.URL, Types: types, Personal: h.OpenSealed, Enabled: h.Enabled,
		Created: moment(h.CreatedAt), PreviousUntil: moment(h.PreviousUntil)}
}

func (s *server) listWebhooks(e echo.Context, c *call) (any, error) {
	ctx := e.Request().Context()
	hooks, err := s.deps.Webhooks.List(ctx, webhookScope(c))
	if err != nil {
		return nil, err
	}
	all, err := s.consumers(ctx, "")
	if err != nil {
		return nil, err
	}
	at := make(map[string]*consumerInfo, len(all))
	for i := range all {
		at[all[i].Name] = &all[i]
	}
	list := []webhook{}
	for _, h := range hooks {
		w := webhookOf(h)
		w.Consumer = at[h.Consumer()]
		list = append(list, w)
	}
	return object{"result": list}, nil
}

// findWebhook returns the webhook of the call's path, if it is in its scope.
func (s *server) findWebhook(e echo.Context, c *call) (consumers.Webhook, error) {
	return s.deps.Webhooks.Get(e.Request().Context(), webhookScope(c), e.Param("id"))
}

// showWebhook answers with a webhook as it is now.
func (s *server) showWebhook(e echo.Context, c *call) (webhook, error) {
	h, err := s.findWebhook(e, c)
	if err != nil {
		return webhook{}, err
	}
	w := webhookOf(h)
	switch infos, err := s.consumers(e.Request().Context(), h.Consumer()); {
	case err == nil:
		w.Consumer = &infos[0]
	case !errors.Is(err, consumers.ErrNoConsumer): // being made, or deleted
		return webhook{}, err
	}
	return w, nil
}

func (s *server) getWebhook(e echo.Context, c *call) (any, error) {
	w, err := s.showWebhook(e, c)
	return object{"webhook": w}, err
}

// createWebhook makes a webhook and answers with its secret, this once.
func (s *server) createWebhook(e echo.Context, c *call) (any, error) {
	var req webhookRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	h := consumers.Webhook{Org: c.org, URL: req.URL, Types: req.Types, OpenSealed: req.Personal}
	if req.AllOrgs {
		if c.token.Role != access.IAMOwner {
			return nil, access.ErrNoPermission
		}
		h.Org = ""
	}
	if len(req.Types) > maxTypes {
		return nil, errTypes
	}
	for _, t := range req.Types {
		if !slices.Contains(domain.EventTypes(), t) {
			return nil, errWebhookType
		}
	}
	start, said := consumers.FromNow(), 0
	switch req.From {
	case "":
	case "now":
		said++
	case "beginning":
		start, said = consumers.FromBeginning(), said+1
	default:
		return nil, errWebhookStart
	}
	if req.After != nil {
		start, said = consumers.FromPosition(eventstore.Position(*req.After)), said+1
	}
	if req.Since != nil {
		start, said = consumers.FromTime(*req.Since), said+1
	}
	if said > 1 || req.After != nil && *req.After < 0 {
		return nil, errWebhookStart
	}
	made, secret, err := s.deps.Webhooks.Create(e.Request().Context(), h, start)
	if err != nil {
		return nil, err
	}
	return object{"webhook": webhookOf(made), "secret": secret}, nil
}

func (s *server) deleteWebhook(e echo.Context, c *call) (any, error) {
	return object{}, s.deps.Webhooks.Delete(e.Request().Context(), webhookScope(c), e.Param("id"))
}

func (s *server) enableWebhook(on bool) func(echo.Context, *call) (any, error) {
	return func(e echo.Context, c *call) (any, error) {
		if err := s.deps.Webhooks.Enable(e.Request().Context(), webhookScope(c), e.Param("id"), on); err != nil {
			return nil, err
		}
		return s.getWebhook(e, c)
	}
}

// rotateWebhook makes a new key and answers with it, this once; the former one
// signs beside it for overlapSeconds.
func (s *server) rotateWebhook(e echo.Context, c *call) (any, error) {
	var req rotateRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	overlap := defaultOverlap
	if req.Overlap != nil {
		if *req.Overlap < 0 || *req.Overlap > int64(consumers.MaxOverlap/time.Second) {
			return nil, errOverlap
		}
		overlap = time.Duration(*req.Overlap) * time.Second
	}
	secret, err := s.deps.Webhooks.Rotate(e.Request().Context(), webhookScope(c), e.Param("id"), overlap)
	if err != nil {
		return nil, err
	}
	w, err := s.showWebhook(e, c)
	return object{"webhook": w, "secret": secret}, err
}

// pingWebhook sends a test message. What comes of it is the answer, and not a
// failure of this call.
func (s *server) pingWebhook(e echo.Context, c *call) (any, error) {
	status, err := s.deps.Webhooks.Ping(e.Request().Context(), webhookScope(c), e.Param("id"))
	var failed *consumers.Failure
	switch {
	case errors.As(err, &failed):
		return object{"delivered": false, "failure": failed.Class}, nil
	case err != nil:
		return nil, err
	}
	return object{"delivered": status >= 200 && status < 300, "status": status}, nil
}

// replayWebhook sends everything behind a position again, under the same
// webhook-id as before.
func (s *server) replayWebhook(e echo.Context, c *call) (any, error) {
	var req replayRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	if req.After == nil || *req.After < 0 {
		return nil, errReplay
	}
	h, err := s.findWebhook(e, c)
	if err != nil {
		return nil, err
	}
	if err := consumers.NewAdmin(s.deps.Store).Reset(e.Request().Context(), h.Consumer(), eventstore.Position(*req.After)); err != nil {
		return nil, err
	}
	return s.getWebhook(e, c)
}

func (s *server) listWebhookParked(e echo.Context, c *call) (any, error) {
	h, err := s.findWebhook(e, c)
	if err != nil {
		return nil, err
	}
	return s.parkedOf(e, h.Consumer())
}

func (s *server) releaseWebhookParked(act func(*consumers.Admin, context.Context, string, string) (int, error)) func(echo.Context, *call) (any, error) {
	return func(e echo.Context, c *call) (any, error) {
		h, err := s.findWebhook(e, c)
		if err != nil {
			return nil, err
		}
		return s.releaseOf(e, h.Consumer(), act)
	}
}

func (s *server) skipWebhookParked(e echo.Context, c *call) (any, error) {
	h, err := s.findWebhook(e, c)
	if err != nil {
		return nil, err
	}
	return s.skipOf(e, c, h.Consumer())
}
