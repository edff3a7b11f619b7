#include "qkv/train/tune_data.h"

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

struct Samples {
  std::vector<TokenSample> samples;  // of pairs: chosen and rejected alternate
  std::vector<std::string> where;
};

Samples tokenize(const std::vector<Record>& records, const ChatTokens& tokens, bool pairs) {
  Samples result;
  const size_t each = pairs ? 2 : 1;
  result.samples.resize(records.size() * each);
  parallel_for(static_cast<int64_t>(records.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      result.samples[at * each] = tokens.sample(records[at]);
      if (pairs) result.samples[at * each + 1] = tokens.rejected(records[at]);
    }
  });
  for (const Record& record : records) result.where.insert(result.where.end(), each, record.where);
  return result;
}

void say_counts(const char* what, const SampleCounts& counts) {
  log_info(
      "{}: {} samples, {} tokens of which {} are learned, longest {}; {} dropped and {} cut for their length",
      what, counts.samples, counts.tokens, counts.learned, counts.longest, counts.dropped, counts.cut);
}

void count(SampleCounts& counts, const TokenSample& sample) {
  ++counts.samples;
  counts.tokens += static_cast<int64_t>(sample.tokens.size());
  counts.learned += sample.learned_count();
}

bool is_pair(const Record& record) {
  return record.rejected.is_chat() || !record.rejected.text.empty();
}

bool suits(RecordSchema schema, const TuneSettings& s) {
  if (s.is_pairwise()) return schema == RecordSchema::preference;
  if (s.kind == TuneKind::kto) return schema == RecordSchema::preference || schema == RecordSchema::unpaired;
  return schema != RecordSchema::preference;
}

const char* wanted(const TuneSettings& s) {
  if (s.is_pairwise()) return "preference";
  return s.kind == TuneKind::kto ? "unpaired or preference" : "chat or completion";
}

}  // namespace

std::vector<Record> read_tuning_data(const std::vector<std::string>& files, const TuneSettings& s,
                                     bool chat) {
  std::vector<Record> records;
  std::optional<RecordSchema> schema;
  for (const std::string& path : files) {
    RecordFile file = read_records(path);
    require(suits(file.schema, s), "{}: expected {} data, found {} data", path, wanted(s),
            schema_name(file.schema));
    require(!schema || *schema == file.schema, "{}: expected {} data, as in {}, found {} data", path,
            schema_name(*schema), files[0], schema_name(file.schema));
    schema = file.schema;
    log_info("{}: {} records of {} data", path, file.records.size(), schema_name(file.schema));
    for (Record& record : file.records)
      records.push_back(chat ? as_chat(std::move(record)) : std::move(record));
  }
  return records;
}

std::vector<TokenSample> tuning_samples(const char* what, const std::vector<Record>& records,
                                        const ChatTokens& tokens, int64_t most, const TuneSettings& s) {
  Samples samples = tokenize(records, tokens, false);
  if (samples.samples.empty()) return {};
  say_counts(what, limit_samples(samples.samples, samples.where, most, overlong_from_name(s.overlong)));
  return std::move(samples.samples);
}

std::vector<PreferencePair> tuning_pairs(const char* what, const std::vector<Record>& records,
                                         const ChatTokens& tokens, int64_t most, const TuneSettings& s) {
  Samples samples = tokenize(records, tokens, true);
  std::vector<PreferencePair> pairs;
  SampleCounts counts;
  const Overlong overlong = overlong_from_name(s.overlong);
  for (size_t i = 0; i < samples.samples.size(); i += 2) {
    TokenSample &chosen = samples.samples[i], &rejected = samples.samples[i + 1];
    const Record& record = records[i / 2];
    require(!s.margins || record.margin.has_value(),
            "{}: margin: expected a number, since reward.margin is on, found none", record.where);
    const bool one = fit_sample(chosen, samples.where[i], most, overlong, counts);
    const bool other = fit_sample(rejected, samples.where[i], most, overlong, counts);
    if (!one || !other) {
      counts.dropped += 2;
      continue;
    }
    count(counts, chosen);
    count(counts, rejected);
    pairs.push_back({std::move(chosen), std::move(rejected), static_cast<float>(record.margin.value_or(0))});
  }
  if (samples.samples.empty()) return pairs;
  say_counts(what, counts);
  require(!pairs.empty(), "data: no pair is left: {} samples have more than {} tokens or no answer",
          counts.dropped, most);
  return pairs;
}

std::vector<LabelledSample> labelled_samples(const char* what, const std::vector<Record>& records,
                                             const ChatTokens& tokens, int64_t most, const TuneSettings& s) {
  const bool pairs = !records.empty() && is_pair(records[0]);
  Samples samples = tokenize(records, tokens, pairs);
  std::vector<LabelledSample> labelled;
  SampleCounts counts;
  for (size_t i = 0; i < samples.samples.size(); ++i) {
    if (!fit_sample(samples.samples[i], samples.where[i], most, overlong_from_name(s.overlong), counts)) {
      ++counts.dropped;
      continue;
    }
    count(counts, samples.samples[i]);
    const bool good = pairs ? i % 2 == 0 : records[i].good;
    labelled.push_back({std::move(samples.samples[i]), good});
  }
  if (samples.samples.empty()) return labelled;
  say_counts(what, counts);
  require(!labelled.empty(), "data: no answer is left: {} samples have more than {} tokens or no answer",
          counts.dropped, most);
  return labelled;
}

}  // namespace qkv
