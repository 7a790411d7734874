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

// settings are what OpenTelemetry's variables say of the exporter, see
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
type settings struct {
	url         string
	header      http.Header
	timeout     time.Duration
	gzip        bool
	authorities string // PEM file; "": the system's
	certificate string // PEM file of the client's
	key         string
}

// readSettings reads them. on is false where no endpoint is named, or tracing is switched off by OTEL_SDK_DISABLED or
// OTEL_TRACES_EXPORTER=none. OTEL_TRACES_EXPORTER=otlp alone switches it on, for a collector on this host.
func readSettings(lookup func(string) (string, bool)) (s settings, on bool, err error) {
	get := func(name string) string {
		v, _ := lookup(name)
		return strings.TrimSpace(v)
	}
	// A variable for traces goes before the one for all signals.
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
		return settings{}, false, fmt.Errorf("OTEL_TRACES_EXPORTER is %q: Rowhook sends traces by otlp, or none", exporter)
	case endpoint == "":
		endpoint, variable = "http://localhost:4318", "OTEL_EXPORTER_OTLP_ENDPOINT"
	}
	if protocol, variable := either("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return settings{}, false, fmt.Errorf("%s is %q: Rowhook sends traces by http/protobuf, to port 4318 of most collectors", variable, protocol)
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
			return settings{}, false, fmt.Errorf("%s is %q: want a whole number of milliseconds", variable, text)
		}
		s.timeout = time.Duration(ms) * time.Millisecond
	}
	compression, variable := either("COMPRESSION")
	switch compression {
	case "gzip":
		s.gzip = true
	case "", "none":
	default:
		return settings{}, false, fmt.Errorf("%s is %q: want gzip or none", variable, compression)
	}
	s.authorities, _ = either("CERTIFICATE")
	s.certificate, _ = either("CLIENT_CERTIFICATE")
	s.key, _ = either("CLIENT_KEY")
	return s, true, nil
}

// traceURL is the endpoint for traces as it is, and that for all signals with the path of traces.
func traceURL(endpoint, variable string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s is no http:// or https:// URL", variable)
	}
	if !strings.HasSuffix(variable, "TRACES_ENDPOINT") {
		u = u.JoinPath("v1", "traces")
	}
	return u.String(), nil
}

// readHeaders reads key=value pairs, separated by commas and percent-encoded.
func readHeaders(text string) (http.Header, error) {
	h := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || strings.TrimSpace(name) == "" {
			return nil, errors.New("can't be read: want key=value, several separated by commas, with special characters percent-encoded")
		}
		h.Set(strings.TrimSpace(name), decoded)
	}
	return h, nil
}
