package tracing

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// settings are the settings of the exporter in OpenTelemetry's variables, see
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
type settings struct {
	url         string
	header      http.Header
	timeout     time.Duration
	gzip        bool
	authorities string // PEM file; "": the system's
	certificate string // PEM file of the client certificate; "": none
	key         string // PEM file of its private key
}

// readSettings reads the settings by lookup. on is false if no endpoint is set, or if
// OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none. OTEL_TRACES_EXPORTER=otlp alone enables
// tracing with a collector on this host.
func readSettings(lookup func(string) (string, bool)) (s settings, on bool, err error) {
	get := func(name string) string {
		v, _ := lookup(name)
		return strings.TrimSpace(v)
	}
	// A variable for traces overrides the one for all signals.
	either := func(name string) (value, variable string) {
		for _, variable := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
			if v := get(variable); v != "" {
				return v, variable
			}
		}
		return "", ""
	}
	if strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return settings{}, false, nil
	}
	endpoint, variable := either("ENDPOINT")
	switch exporter := get("OTEL_TRACES_EXPORTER"); {
	case exporter == "none", exporter == "" && endpoint == "":
		return settings{}, false, nil
	case exporter != "" && exporter != "otlp":
		return settings{}, false, fmt.Errorf("OTEL_TRACES_EXPORTER is %q: set it to otlp or none", exporter)
	case endpoint == "":
		endpoint, variable = "http://localhost:4318", "OTEL_EXPORTER_OTLP_ENDPOINT"
	}
	if protocol, variable := either("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return settings{}, false, fmt.Errorf("%s is %q, but Rowhook supports only http/protobuf: set it to that, and use the collector's port for it, usually 4318", variable, protocol)
	}
	if s.url, err = traceURL(endpoint, variable); err != nil {
		return settings{}, false, err
	}
	headers, variable := either("HEADERS")
	if s.header, err = readHeaders(headers); err != nil {
		return settings{}, false, fmt.Errorf("%s %w", variable, err)
	}
	s.timeout = sendTimeout
	if text, variable := either("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms < 0 {
			return settings{}, false, fmt.Errorf("%s is %q: write a whole number of milliseconds", variable, text)
		}
		s.timeout = time.Duration(ms) * time.Millisecond
	}
	compression, variable := either("COMPRESSION")
	switch compression {
	case "gzip":
		s.gzip = true
	case "", "none":
	default:
		return settings{}, false, fmt.Errorf("%s is %q: write gzip or none", variable, compression)
	}
	s.authorities, _ = either("CERTIFICATE")
	s.certificate, _ = either("CLIENT_CERTIFICATE")
	s.key, _ = either("CLIENT_KEY")
	return s, true, nil
}

// traceURL returns the URL for traces. It appends v1/traces to an endpoint for all signals.
func traceURL(endpoint, variable string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s is not an http:// or https:// URL: write one such as http://localhost:4318", variable)
	}
	if !strings.HasSuffix(variable, "TRACES_ENDPOINT") {
		u = u.JoinPath("v1", "traces")
	}
	return u.String(), nil
}

// readHeaders reads percent-encoded key=value pairs, separated by commas.
func readHeaders(text string) (http.Header, error) {
	h := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || strings.TrimSpace(name) == "" {
			return nil, errors.New("can't be parsed: write key=value, several separated by commas, with special characters percent-encoded")
		}
		h.Set(strings.TrimSpace(name), decoded)
	}
	return h, nil
}
