#include "batch/model_input.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace springtide {

ModelInput::ModelInput(std::vector<Field> fields, size_t dense_columns, size_t threads)
    : columns_(dense_columns), workers_(threads) {
    size_t start = 0;
    for (const Field& field : fields) {
        const size_t dim = field.table->dim();
        parts_.push_back({field.table, field.mean, start, {}, {}, {}, std::vector<float>(dim), {}});
        start += dim;
    }
    columns_ += start;
}

Pooling ModelInput::pooling_of(const Part& part, const FieldKeys& keys) {
    return {keys.inverse, keys.offsets, keys.keys.size(), part.table->dim(), part.mean};
}

void ModelInput::find(std::span<const FieldKeys> batch, size_t* missing) {
    if (batch.size() != parts_.size())
        throw std::invalid_argument("batch: got " + std::to_string(batch.size()) + " fields, wanted " +
                                    std::to_string(parts_.size()));
    for (size_t f = 0; f < parts_.size(); ++f) {
        if (batch[f].counts.size() != batch[f].keys.size())
            throw std::invalid_argument("counts: got " + std::to_string(batch[f].counts.size()) + ", wanted " +
                                        std::to_string(batch[f].keys.size()) + ", one for each key");
        check(pooling_of(parts_[f], batch[f]), {columns_, parts_[f].start});
    }
    workers_.run(parts_.size(), [&](size_t f) {
        auto& [keys, rows] = parts_[f].begun;
        keys = batch[f];
        rows.resize(keys.keys.size());
        parts_[f].table->find(keys.keys, rows.data());
        missing[f] = static_cast<size_t>(std::count(rows.begin(), rows.end(), kNoRow));
    });
    begun_ = true;
}

void ModelInput::resident(size_t f, uint8_t* resident) const {
    for (const uint32_t row : parts_.at(f).begun.rows) *resident++ = row != kNoRow;
}

void ModelInput::admit(size_t f, std::span<const int64_t> places, uint32_t at_s) {
    Found& found = parts_.at(f).begun;
    std::vector<uint64_t> keys;
    keys.reserve(places.size());
    for (const int64_t place : places) {
        if (place < 0 || static_cast<size_t>(place) >= found.rows.size())
            throw std::invalid_argument("places: got " + std::to_string(place) + ", wanted 0 to " +
                                        std::to_string(found.rows.size()) + " - 1");
        keys.push_back(found.keys.keys[static_cast<size_t>(place)]);
    }
    std::vector<uint32_t> rows(keys.size());
    parts_[f].table->admit_new(keys, rows.data(), at_s);
    for (size_t i = 0; i < rows.size(); ++i) found.rows[static_cast<size_t>(places[i])] = rows[i];
}

std::vector<std::vector<int64_t>> ModelInput::admit_missing(std::span<const size_t> fields, uint32_t at_s) {
    std::vector<std::vector<int64_t>> places(fields.size());
    for (const size_t f : fields) parts_.at(f);
    workers_.run(fields.size(), [&](size_t i) {
        const std::vector<uint32_t>& rows = parts_[fields[i]].begun.rows;
        for (size_t place = 0; place < rows.size(); ++place)
            if (rows[place] == kNoRow) places[i].push_back(static_cast<int64_t>(place));
        admit(fields[i], places[i], at_s);
    });
    return places;
}

void ModelInput::take_up() {
    if (!begun_) return;
    for (Part& part : parts_) std::swap(part.begun, part.taken_up);
    begun_ = false;
}

void ModelInput::gather(float* out) {
    take_up();
    workers_.run(parts_.size(), [&](size_t f) {
        Part& part = parts_[f];
        const auto& [keys, rows] = part.taken_up;
        part.weights.resize(rows.size());
        std::transform(rows.begin(), rows.end(), part.weights.begin(), [&](uint32_t row) {
            return row == kNoRow ? part.zeros.data() : static_cast<const Table*>(part.table)->weights(row);
        });
        pool(pooling_of(part, keys), part.weights.data(), out, {columns_, part.start});
    });
}

void ModelInput::learn(const float* gradient, uint32_t at_s) {
    workers_.run(parts_.size(), [&](size_t f) {
        Part& part = parts_[f];
        const auto& [keys, rows] = part.taken_up;
        part.gradients.resize(rows.size() * part.table->dim());
        unpool(pooling_of(part, keys), gradient, {columns_, part.start}, part.gradients.data());
        part.table->update_rows(rows, keys.keys, part.gradients.data(), keys.counts.data(), at_s);
    });
}

}  // namespace springtide
