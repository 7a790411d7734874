package trigger

// OAuth2 says where tokens come from, by the grant of client credentials (RFC 6749, section 4.4). Each
// request carries the token in its header Authorization. All values may hold references.
type OAuth2 struct {
	// TokenURL is the http or https URL of the token endpoint.
	TokenURL string `json:"token_url,omitempty" yaml:"token_url,omitempty"`
	// ClientID and ClientSecret are what the token endpoint knows this client by.
	ClientID     string `json:"client_id,omitempty" yaml:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty" yaml:"client_secret,omitempty"`
	// Scopes are asked for. nil leaves them to the token endpoint.
	Scopes []string `json:"scopes,omitempty" yaml:"scopes,omitempty"`
	// Audience is sent as the parameter audience, which some token endpoints want. "" sends none.
	Audience string `json:"audience,omitempty" yaml:"audience,omitempty"`
}

// IsZero reports whether no token is asked for.
func (o OAuth2) IsZero() bool {
	return o.TokenURL == "" && o.ClientID == "" && o.ClientSecret == "" && len(o.Scopes) == 0 && o.Audience == ""
}
