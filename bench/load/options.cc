#include "load/options.h"

#include <CLI/CLI.hpp>
#include <map>

namespace llorch::bench {
namespace {

void add_lengths(CLI::App& app, const char* flag, LengthMix& value, const char* help) {
  app.add_option_function<std::string>(
      flag,
      [&value](const std::string& text) {
        try {
          value = LengthMix::parse(text);
        } catch (const std::invalid_argument& e) {
          throw CLI::ValidationError(e.what());
        }
      },
      help);
}

void add_server(CLI::App& app, Options& o) {
  const std::map<std::string, Api> apis = {{"execute", Api::kExecute}, {"openai", Api::kOpenAi}};
  app.add_option("--host", o.host, "an address, not a name")->check(CLI::ValidIPV4);
  app.add_option("--port", o.port);
  app.add_option("--api", o.api, "/execute, or OpenAI's /v1/completions")
      ->transform(CLI::CheckedTransformer(apis));
  app.add_option("--model", o.model, "the name that OpenAI's API asks for");
  app.add_option("--pid", o.pid, "of the server: its processor time and memory are shown");
}

void add_arrivals(CLI::App& app, Options& o) {
  const std::map<std::string, ArrivalKind> kinds = {{"poisson", ArrivalKind::kPoisson},
                                                    {"fixed", ArrivalKind::kFixed},
                                                    {"burst", ArrivalKind::kBurst}};
  app.add_option("--arrivals", o.arrivals, "poisson, fixed, or burst (all at once)")
      ->transform(CLI::CheckedTransformer(kinds));
  app.add_option("--rate", o.rate, "arrivals a second")->check(CLI::PositiveNumber);
  app.add_option("--concurrency", o.concurrency,
                 "a closed loop instead: so many clients, each one request after the other")
      ->check(CLI::PositiveNumber);
  app.add_option("--requests", o.requests, "stop after so many conversations");
  app.add_option("--duration", o.duration_s, "begin none after so many seconds");
  app.add_option("--timeout", o.timeout_s, "seconds after which a request is lost")
      ->check(CLI::PositiveNumber);
}

void add_workload(CLI::App& app, Options& o) {
  WorkloadOptions& w = o.workload;
  const auto share = [&](const char* flag, double& value, const char* help) {
    app.add_option(flag, value, help)->check(CLI::Range(0.0, 1.0));
  };
  add_lengths(
      app, "--prompt-tokens", w.prompt_tokens,
      "128, uniform:16-512, lognormal:200,0.8,4096, or a mix: 0.9*64+0.1*4096; default 128");
  add_lengths(app, "--output-tokens", w.output_tokens, "the same; default 64");
  add_lengths(app, "--turns", w.turns,
              "the same: requests of a conversation, each with all before; default 1");
  add_lengths(app, "--follow-up-tokens", w.follow_up_tokens,
              "the same, of its later turns; default 32");
  app.add_option("--think", o.think_s, "mean pause between turns, in seconds");
  share("--prefix-share", w.prefix_share, "share of conversations with a shared prefix");
  app.add_option("--prefix-tokens", w.prefix_tokens)->check(CLI::PositiveNumber);
  app.add_option("--prefix-groups", w.prefix_groups, "different prefixes")
      ->check(CLI::PositiveNumber);
  share("--disconnect-share", w.disconnect_share, "share of requests whose client goes away");
  share("--cancel-share", w.cancel_share, "share of requests that are cancelled by POST /cancel");
  app.add_option("--words", w.words,
                 "prompts are of so many of a random_model's tokens; 0: of English words")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--temperature", o.temperature);
  app.add_option("--seed", w.seed, "of arrivals, lengths, texts and the requests' own seeds");
}

void add_output(CLI::App& app, Options& o) {
  app.add_option("--probe-path", o.probe_path, "asked for beside the load, on its own connection");
  app.add_option("--probe-rate", o.probe_rate, "how often a second; 0: never");
  app.add_option("--label", o.label, "title of report and plot");
  app.add_option("--json", o.json_file, "write all figures here");
  app.add_option("--plot", o.plot_file, "draw them here, as SVG");
  app.add_option(
      "--trace", o.trace_file,
      "write every token here: when (steady clock), seconds since the one before, request");
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options o;
  CLI::App app("Puts a load on a worker and measures what its clients see");
  app.option_defaults()->always_capture_default();
  add_server(app, o);
  add_arrivals(app, o);
  add_workload(app, o);
  add_output(app, o);
  try {
    app.parse(argc, argv);
    if (o.requests == 0 && o.duration_s <= 0) {
      throw CLI::ValidationError("--requests or --duration must say when to stop");
    }
    if (o.arrivals == ArrivalKind::kBurst && o.requests == 0 && o.concurrency == 0) {
      throw CLI::ValidationError("a burst has no end without --requests");
    }
    if (o.api == Api::kOpenAi && o.workload.cancel_share > 0) {
      throw CLI::ValidationError("OpenAI's API has no cancel; there is --disconnect-share");
    }
    if (o.workload.disconnect_share + o.workload.cancel_share > 1) {
      throw CLI::ValidationError("--disconnect-share and --cancel-share are more than all");
    }
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e) == 0 ? 0 : 2);
  }
  return o;
}

}  // namespace llorch::bench
