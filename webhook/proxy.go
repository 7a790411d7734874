package webhook

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// proxies are the proxies of the environment.
type proxies struct {
	config httpproxy.Config
	choose func(*url.URL) (*url.URL, error)
}

func newProxies(config *httpproxy.Config) *proxies {
	return &proxies{config: *config, choose: config.ProxyFunc()}
}

func (p *proxies) proxy(req *http.Request) (*url.URL, error) { return p.choose(req.URL) }

// check returns why the proxy for a URL can't be used, or nil. The standard library ignores a
// malformed proxy and would connect without it. It takes an unknown scheme for http.
func (p *proxies) check(u *url.URL) error {
	name, value := "HTTP_PROXY", p.config.HTTPProxy
	if u.Scheme == "https" {
		name, value = "HTTPS_PROXY", p.config.HTTPSProxy
	}
	if value == "" {
		return nil
	}
	some := p.config
	some.HTTPProxy, some.HTTPSProxy = "http://proxy.invalid", "http://proxy.invalid"
	if used, _ := some.ProxyFunc()(u); used == nil {
		return nil // NO_PROXY or a loopback address
	}
	parsed, err := url.Parse(value)
	if (err != nil || parsed.Scheme == "" || parsed.Host == "") && !strings.Contains(value, "://") {
		parsed, err = url.Parse("http://" + value)
	}
	const cure = "write it like http://proxy.example.com:3128, or name the webhook's host in NO_PROXY"
	switch {
	case err != nil || parsed.Hostname() == "":
		return fmt.Errorf("the environment variable %s is not the URL of a proxy: %s", name, cure)
	case parsed.Scheme != "http" && parsed.Scheme != "https" && parsed.Scheme != "socks5" && parsed.Scheme != "socks5h":
		return fmt.Errorf("the environment variable %s has a scheme other than http, https, socks5 and socks5h: %s", name, cure)
	}
	if port := parsed.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("the environment variable %s has a port that is not between 1 and 65535: %s", name, cure)
		}
	}
	return nil
}
