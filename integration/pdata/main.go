// Command pdata reads a file with one ExportProfilesServiceRequest, in protobuf or (*.json) in OTLP's JSON, through the
// OpenTelemetry Collector's own data model and prints as JSON what the Collector would see: of each resource its attributes, and
// every occurrence of every sample. With -json it prints the request itself in OTLP's JSON, as the Collector writes it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
)

type resource struct {
	Attributes map[string]any `json:"attributes"`
	Scope      string         `json:"scope"`
	ScopeAttrs map[string]any `json:"scope_attributes"`
	SampleType string         `json:"sample_type"`
	PeriodType string         `json:"period_type"`
	Period     int64          `json:"period"`
	Time       uint64         `json:"time"`
	Duration   uint64         `json:"duration"`
	Samples    []sample       `json:"samples"`
}

type sample struct {
	// Leaf first, inlined functions before those that they are in.
	Frames     []frame        `json:"frames"`
	Attributes map[string]any `json:"attributes"`
	Time       uint64         `json:"time"`
	Value      int64          `json:"value"`
}

type frame struct {
	Function   string         `json:"function"`
	File       string         `json:"file"`
	Line       int64          `json:"line"`
	Address    uint64         `json:"address"`
	Mapping    string         `json:"mapping"`
	MappingIDs map[string]any `json:"mapping_ids"`
	Attributes map[string]any `json:"attributes"`
}

type reader struct {
	dictionary pprofile.ProfilesDictionary
}

func (r reader) text(index int32) string {
	return r.dictionary.StringTable().At(int(index))
}

func (r reader) attributes(indices pcommon.Int32Slice) map[string]any {
	attributes := map[string]any{}
	for _, index := range indices.All() {
		attribute := r.dictionary.AttributeTable().At(int(index))
		attributes[r.text(attribute.KeyStrindex())] = attribute.Value().AsRaw()
	}
	return attributes
}

func (r reader) frames(stack pprofile.Stack) []frame {
	frames := []frame{}
	for _, index := range stack.LocationIndices().All() {
		location := r.dictionary.LocationTable().At(int(index))
		mapping := r.dictionary.MappingTable().At(int(location.MappingIndex()))
		base := frame{
			Address:    location.Address(),
			Mapping:    r.text(mapping.FilenameStrindex()),
			MappingIDs: r.attributes(mapping.AttributeIndices()),
			Attributes: r.attributes(location.AttributeIndices()),
		}
		if location.Lines().Len() == 0 {
			frames = append(frames, base)
		}
		for _, line := range location.Lines().All() {
			function := r.dictionary.FunctionTable().At(int(line.FunctionIndex()))
			found := base
			found.Function = r.text(function.NameStrindex())
			found.File = r.text(function.FilenameStrindex())
			found.Line = line.Line()
			frames = append(frames, found)
		}
	}
	return frames
}

func (r reader) valueType(kind pprofile.ValueType) string {
	return r.text(kind.TypeStrindex()) + "/" + r.text(kind.UnitStrindex())
}

func (r reader) samples(profile pprofile.Profile) []sample {
	samples := []sample{}
	for _, found := range profile.Samples().All() {
		one := sample{
			Frames:     r.frames(r.dictionary.StackTable().At(int(found.StackIndex()))),
			Attributes: r.attributes(found.AttributeIndices()),
			Value:      1,
		}
		times, values := found.TimestampsUnixNano(), found.Values()
		for index := range max(times.Len(), values.Len()) {
			if index < times.Len() {
				one.Time = times.At(index)
			}
			if index < values.Len() {
				one.Value = values.At(index)
			}
			samples = append(samples, one)
		}
	}
	return samples
}

func run(path string, asJSON bool) error {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	request := pprofileotlp.NewExportRequest()
	read := request.UnmarshalProto
	if strings.HasSuffix(path, ".json") {
		read = request.UnmarshalJSON
	}
	if err := read(bytes); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if asJSON {
		written, err := request.MarshalJSON()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		_, err = os.Stdout.Write(written)
		return err
	}
	profiles := request.Profiles()
	r := reader{profiles.Dictionary()}
	resources := []resource{}
	for _, found := range profiles.ResourceProfiles().All() {
		for _, scope := range found.ScopeProfiles().All() {
			for _, profile := range scope.Profiles().All() {
				resources = append(resources, resource{
					Attributes: found.Resource().Attributes().AsRaw(),
					Scope:      scope.Scope().Name() + " " + scope.Scope().Version(),
					ScopeAttrs: scope.Scope().Attributes().AsRaw(),
					SampleType: r.valueType(profile.SampleType()),
					PeriodType: r.valueType(profile.PeriodType()),
					Period:     profile.Period(),
					Time:       uint64(profile.Time()),
					Duration:   profile.DurationNano(),
					Samples:    r.samples(profile),
				})
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(resources)
}

func main() {
	arguments := os.Args[1:]
	asJSON := len(arguments) > 0 && arguments[0] == "-json"
	if asJSON {
		arguments = arguments[1:]
	}
	if len(arguments) != 1 {
		fmt.Fprintln(os.Stderr, "usage: pdata [-json] FILE.otlp|FILE.json")
		os.Exit(2)
	}
	if err := run(arguments[0], asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "pdata:", err)
		os.Exit(1)
	}
}
