package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// codeParameters say where the zips are. The bucket must be in the stack's region.
const codeParameters = `
CodeBucket:
  Type: String
  Description: Bucket in the stack's region that holds the functions' zips.
  AllowedPattern: '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$'
  ConstraintDescription: must be a bucket's name.
CodePrefix:
  Type: String
  Default: ''
  Description: What stands before the zips' names in the bucket, such as zuplo/.
  AllowedPattern: '^[A-Za-z0-9!_.*()/-]{0,512}$'
  ConstraintDescription: must be at most 512 letters, digits, slashes or any of ! _ . * ( ) -.
Architecture:
  Type: String
  Default: arm64
  Description: The functions' instruction set.
  AllowedValues: [arm64, x86_64]
  ConstraintDescription: must be arm64 or x86_64.
`

const install = `# zuplo-lambda-authorizer %s for CloudFormation. Nothing has to be built: docs/release.md, "Installing", has the commands.
`

// forCloudFormation makes the template whose code is in a bucket, for both architectures.
func forCloudFormation(text []byte, version string) ([]byte, error) {
	t, err := read(text)
	if err != nil {
		return nil, err
	}
	t.architecture(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!Ref", Value: "Architecture"})
	if err := t.code(func(function string) (*yaml.Node, error) {
		return parse(fmt.Sprintf("Bucket: !Ref CodeBucket\nKey: !Sub '${CodePrefix}%s-%s-${Architecture}.zip'\n", function, version))
	}); err != nil {
		return nil, err
	}
	added, err := parse(codeParameters)
	if err != nil {
		return nil, err
	}
	parameters := member(t.root, "Parameters")
	parameters.Content = append(added.Content, parameters.Content...)
	return t.write(fmt.Sprintf(install, version))
}

// repositoryTypes are resource types that the Serverless Application Repository takes, of the services that a template of ours may
// use: https://docs.aws.amazon.com/serverlessrepo/latest/devguide/list-supported-resources.html
var repositoryTypes = regexp.MustCompile(`^AWS::(` +
	`ApiGateway(V2)?::\w+|CloudWatch::(Alarm|Dashboard)|DynamoDB::Table|Events::Rule|IAM::(ManagedPolicy|Policy|Role)|KMS::(Alias|Key)|` +
	`Lambda::(Alias|Function|LayerVersion|Permission|Version)|Logs::(Destination|LogGroup|LogStream|MetricFilter|SubscriptionFilter)|` +
	`SNS::(Subscription|Topic|TopicPolicy)|SQS::(Queue|QueuePolicy)|Serverless::(Api|Function|LayerVersion|SimpleTable))$`)

// forRepository makes the template that sam package, which puts the zips and texts beside it into a bucket, makes ready for
// sam publish. The repository takes no intrinsic in the place of code, so it is for the one architecture that the template has.
func forRepository(text []byte, version string) ([]byte, error) {
	t, err := read(text)
	if err != nil {
		return nil, err
	}
	arch := member(t.root, "Mappings", "Build", "Functions", "Architecture")
	if arch == nil || architectures[arch.Value] == "" {
		return nil, errors.New("the template's architecture (Mappings, Build, Functions, Architecture) is neither arm64 nor x86_64")
	}
	t.architecture(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: arch.Value})
	if err := t.code(func(function string) (*yaml.Node, error) {
		return parse(fmt.Sprintf("./%s-%s-%s.zip\n", function, version, arch.Value))
	}); err != nil {
		return nil, err
	}
	if err := t.keep(repositoryTypes); err != nil {
		return nil, err
	}
	return t.write(fmt.Sprintf("# zuplo-lambda-authorizer %s for the AWS Serverless Application Repository: docs/release.md, \"Publishing\".\n", version))
}

// A template is one of SAM's, from the root of its document.
type template struct{ root *yaml.Node }

func read(text []byte) (t template, err error) {
	t.root, err = parse(string(text))
	if err == nil && (t.root.Kind != yaml.MappingNode || member(t.root, "Resources") == nil || member(t.root, "Parameters") == nil) {
		err = errors.New("the template has no Resources or no Parameters")
	}
	return t, err
}

func parse(text string) (*yaml.Node, error) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		return nil, err
	}
	return n.Content[0], nil
}

// ruleFunctions are those intrinsics of Rules for which CloudFormation documents no short form.
var ruleFunctions = []string{"!Contains", "!EachMemberEquals", "!EachMemberIn", "!RefAll", "!ValueOf", "!ValueOfAll"}

func (t template) write(head string) ([]byte, error) {
	walk(t.root, func(n *yaml.Node) {
		if slices.Contains(ruleFunctions, n.Tag) {
			arguments := *n
			arguments.Tag = ""
			*n = yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "Fn::" + n.Tag[1:]}, &arguments}}
		}
	})
	b := bytes.NewBufferString(head)
	e := yaml.NewEncoder(b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(t.root), e.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// architecture puts n wherever the template looks its architecture up, and takes the place away where it did.
func (t template) architecture(n *yaml.Node) {
	walk(t.root, func(at *yaml.Node) {
		if at.Tag == "!FindInMap" && strings.Join(values(at), "/") == "Build/Functions/Architecture" {
			*at = *n
		}
	})
	remove(t.root, "Mappings", "Build")
}

// code gives every function its code, and takes away how it is built.
func (t template) code(of func(function string) (*yaml.Node, error)) error {
	remove(t.root, "Globals", "Function", "CodeUri")
	n := 0
	for id, r := range members(member(t.root, "Resources")) {
		if kind := member(r, "Type"); kind == nil || kind.Value != "AWS::Serverless::Function" {
			continue
		}
		function := strings.ToLower(strings.TrimSuffix(id, "Function"))
		if !slices.Contains(functions, function) {
			return fmt.Errorf("the release has no zip for the function %s", id)
		}
		for _, m := range []string{"BuildMethod", "ContextPath", "WorkingDirectory"} {
			remove(r, "Metadata", m)
		}
		code, err := of(function)
		if err != nil {
			return err
		}
		properties := member(r, "Properties")
		properties.Content = append([]*yaml.Node{{Kind: yaml.ScalarNode, Value: "CodeUri"}, code}, properties.Content...)
		n++
	}
	if n != len(functions) {
		return fmt.Errorf("the template has %d functions, the release %d", n, len(functions))
	}
	return nil
}

// keep leaves out resources of other types, and the outputs that tell of them. What else needs one of them is an error.
func (t template) keep(types *regexp.Regexp) error {
	var gone []string
	for id, r := range members(member(t.root, "Resources")) {
		if kind := member(r, "Type"); kind == nil || !types.MatchString(kind.Value) {
			gone = append(gone, id)
		}
	}
	for _, id := range gone {
		remove(t.root, "Resources", id)
	}
	for _, section := range []string{"Outputs", "Resources"} {
		for id, part := range members(member(t.root, section)) {
			for _, g := range gone {
				switch {
				case !refers(part, g):
				case section == "Outputs":
					remove(t.root, section, id)
				default:
					return fmt.Errorf("the resource %s needs %s, which the repository does not take", id, g)
				}
			}
		}
	}
	return nil
}

// refers reports whether an intrinsic or a DependsOn below n names the resource.
func refers(n *yaml.Node, id string) (found bool) {
	word := regexp.MustCompile(`(^|\$\{)` + regexp.QuoteMeta(id) + `($|[.}])`)
	walk(n, func(at *yaml.Node) {
		found = found || at.Kind == yaml.ScalarNode && word.MatchString(at.Value)
	})
	return found
}

// walk calls f for n and all below it.
func walk(n *yaml.Node, f func(*yaml.Node)) {
	f(n)
	for _, c := range n.Content {
		walk(c, f)
	}
}

func values(n *yaml.Node) (all []string) {
	for _, c := range n.Content {
		all = append(all, c.Value)
	}
	return all
}

// members yields a mapping's, by name. It may be changed meanwhile.
func members(n *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil {
			return
		}
		content := slices.Clone(n.Content)
		for i := 0; i+1 < len(content); i += 2 {
			if !yield(content[i].Value, content[i+1]) {
				return
			}
		}
	}
}

// member walks down from n; nil stands for what is not there.
func member(n *yaml.Node, path ...string) *yaml.Node {
	for _, p := range path {
		var next *yaml.Node
		for name, v := range members(n) {
			if name == p {
				next = v
			}
		}
		if n = next; n == nil {
			return nil
		}
	}
	return n
}

// remove takes the member at the end of the path away, and what it was in if that is empty then.
func remove(n *yaml.Node, path ...string) {
	in, last := member(n, path[:len(path)-1]...), path[len(path)-1]
	if in == nil {
		return
	}
	for i := 0; i+1 < len(in.Content); i += 2 {
		if in.Content[i].Value == last {
			in.Content = slices.Delete(in.Content, i, i+2)
			break
		}
	}
	if len(in.Content) == 0 && len(path) > 1 {
		remove(n, path[:len(path)-1]...)
	}
}
